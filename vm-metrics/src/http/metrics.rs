//! `/metrics`: one rendering per snapshot and format, and what differs from one request to the next.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::shared_body::SharedBody;
use crate::exporters::prometheus::{Format, PrometheusExporter};

/// Shared by all listeners, so that each snapshot is rendered once.
#[derive(Clone, Debug)]
pub struct Scrapes {
    exporter: Arc<PrometheusExporter>,
    /// Per format, by tick and whether it is stale.
    rendered: Arc<[SharedBody<(u64, bool)>; Format::ALL.len()]>,
}

/// Why there is nothing to show.
enum Failure {
    NoTick,
    Rendering(prometheus::Error),
}

impl Scrapes {
    pub fn new(exporter: PrometheusExporter) -> Self {
        Self { exporter: Arc::new(exporter), rendered: Arc::default() }
    }
}

pub(super) fn router(scrapes: Scrapes) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(scrapes)
}

async fn metrics(State(scrapes): State<Scrapes>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(accept);
    let Scrapes { exporter, rendered } = scrapes;
    let now = || {
        let (snapshot, stale) = exporter.latest().ok_or(Failure::NoTick)?;
        let (key, renderer) = ((snapshot.tick, stale), Arc::clone(&exporter));
        Ok((key, move || renderer.of_snapshot(&snapshot, stale, format).map_err(Failure::Rendering)))
    };
    let still = match rendered[format as usize].get(now).await {
        Ok(Ok(still)) => still,
        Ok(Err(Failure::NoTick)) => return no_tick(),
        Ok(Err(Failure::Rendering(error))) => return failed(&error),
        Err(error) => return failed(&error),
    };
    match exporter.of_now(format) {
        Ok(live) => still.respond(Bytes::from(live), format.content_type()),
        Err(error) => failed(&error),
    }
}

fn no_tick() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the first tick has not ended\n").into_response()
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("cannot render the metrics: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics: the log says why\n").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;

    use super::*;
    use crate::exporters::View;
    use crate::exporters::metrics::tests::full;
    use crate::manager::Ticker;

    async fn first_chunk(scrapes: &Scrapes) -> Bytes {
        let mut body = metrics(State(scrapes.clone()), HeaderMap::new()).await.into_body();
        assert!(body.size_hint().exact().is_some());
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        frame.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn forty_scrapes_hold_one_body() {
        let (sender, ticker) = Ticker::showing(Some(full()));
        let scrapes = Scrapes::new(PrometheusExporter::new("vm", View::default(), ticker));
        let mut chunks = Vec::new();
        for _ in 0..40 {
            chunks.push(first_chunk(&scrapes).await);
        }
        assert!(chunks.iter().all(|chunk| chunk.as_ptr() == chunks[0].as_ptr() && chunk.len() > 1000));
        let mut next = full();
        next.tick += 1;
        sender.send_replace(Some(Arc::new(next)));
        assert_ne!(first_chunk(&scrapes).await.as_ptr(), chunks[0].as_ptr(), "the next tick has its own");
    }

    #[tokio::test]
    async fn before_the_first_tick_there_is_no_answer() {
        let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(None).1);
        let answer = metrics(State(Scrapes::new(exporter)), HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
