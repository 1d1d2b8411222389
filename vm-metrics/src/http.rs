//! The one HTTP server: `/metrics`, `/-/healthy` and `/-/ready`.
//!
//! Healthy means that the process answers. Ready means that a first snapshot is there; from then on it stays so.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::exporters::prometheus::{Format, PrometheusExporter};
use crate::manager::Ticker;

const INDEX: &str = "<h1>vm-metrics</h1><p><a href=\"/metrics\">metrics</a></p>";

pub fn router(exporter: PrometheusExporter, ticker: Ticker) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(exporter));
    let ready = Router::new().route("/-/ready", get(ready)).with_state(ticker);
    Router::new()
        .route("/", get(async || Html(INDEX)))
        .route("/-/healthy", get(async || "healthy\n"))
        .merge(metrics)
        .merge(ready)
}

async fn metrics(State(exporter): State<Arc<PrometheusExporter>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(accept);
    // Rendering thousands of VMs takes a while: not on the thread that answers the others.
    match tokio::task::spawn_blocking(move || exporter.scrape(format)).await {
        Ok(Ok(Some(body))) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Ok(Ok(None)) => (StatusCode::SERVICE_UNAVAILABLE, "the first tick has not ended\n").into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

async fn ready(State(ticker): State<Ticker>) -> Response {
    if ticker.borrow().is_some() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the first tick has not ended\n").into_response()
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("cannot render the metrics: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {error}\n")).into_response()
}
