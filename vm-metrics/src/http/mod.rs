//! The one HTTP server: `/metrics`, `/api/v1`, `/-/healthy` and `/-/ready`.
//!
//! Healthy means that ticks end. Ready means that a first snapshot is there; from then on it stays so.

mod activity;
mod api;
mod connections;
mod open;
mod peer;
mod problem;
pub mod push;
mod rate;
mod socket_owner;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::exporters::prometheus::{Format, PrometheusExporter};
use crate::manager::Ticker;

pub use api::Description;
pub use connections::{listen, serve};

const INDEX: &str =
    "<h1>vm-metrics</h1><p><a href=\"/metrics\">metrics</a> <a href=\"/api/v1/vms\">VMs</a></p>";

pub fn router(exporter: PrometheusExporter, ticker: Ticker) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(exporter));
    let state = Router::new()
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .with_state(ticker.clone());
    let api = api::router(ticker);
    Router::new()
        .route("/", get(async || Html(INDEX)))
        .merge(metrics)
        .merge(state)
        .merge(api)
        .fallback(problem::not_found)
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

async fn healthy(State(ticker): State<Ticker>) -> Response {
    match ticker.hangs() {
        None => "healthy\n".into_response(),
        Some(age) => {
            let problem = format!("not healthy: no tick has ended for {} seconds\n", age.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
        }
    }
}

async fn ready(State(ticker): State<Ticker>) -> Response {
    if ticker.latest().is_some() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the first tick has not ended\n").into_response()
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("cannot render the metrics: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {error}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exporters::metrics::tests::full;

    #[tokio::test]
    async fn ticks_that_hang_are_not_healthy() {
        let status_at = async |age| {
            let mut snapshot = full();
            snapshot.taken = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
            healthy(State(Ticker::showing(Some(snapshot)).1)).await.status()
        };
        assert_eq!(status_at(1).await, StatusCode::OK);
        assert_eq!(status_at(31).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(healthy(State(Ticker::showing(None).1)).await.status(), StatusCode::OK, "just started");
    }
}
