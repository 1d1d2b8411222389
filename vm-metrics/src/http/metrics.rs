//! Serves `/metrics`, rendered once for each snapshot and format.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::coding::Coding;
use super::shared_body::SharedBody;
use crate::exporters::prometheus::{Format, PrometheusExporter};

/// Shared by all listeners, so that each snapshot is rendered once.
#[derive(Clone, Debug)]
pub struct Scrapes {
    exporter: Arc<PrometheusExporter>,
    /// Per format, by tick and whether it is stale.
    rendered: Arc<[SharedBody<(u64, bool)>; Format::ALL.len()]>,
}

/// The reason for an answer without metrics.
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
    let still = match rendered[format as usize].get(Coding::negotiate(&headers), now).await {
        Ok(Ok(still)) => still,
        Ok(Err(Failure::NoTick)) => return no_tick(),
        Ok(Err(Failure::Rendering(error))) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let mut response = still.respond(Bytes::from(exporter.of_now(format)), format.content_type());
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn no_tick() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the first tick has not ended\n").into_response()
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("cannot render the metrics: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics: the log has the reason\n").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;
    use axum::http::HeaderName;

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

    /// As a request with these headers gets it.
    async fn body(scrapes: &Scrapes, headers: &[(HeaderName, &'static str)]) -> Vec<u8> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let answer = metrics(State(scrapes.clone()), headers.collect()).await;
        axum::body::to_bytes(answer.into_body(), 16 << 20).await.unwrap().into()
    }

    /// `cargo test -p vm-metrics --lib a_hundred_vms_shrink -- --nocapture` prints the sizes.
    #[tokio::test]
    async fn a_hundred_vms_shrink_to_a_tenth() {
        let mut snapshot = full();
        let vm = snapshot.vms[0].clone();
        let numbered = |number: u64| {
            let mut vm = vm.clone();
            vm.instance_id =
                format!("{:08x}-0000-4000-8000-{number:012x}", number.wrapping_mul(2_654_435_761));
            vm.instance_name = format!("guest-{number}");
            vm.process.cpu_usec = Some(number * 1_234_567);
            vm.process.memory_rss_bytes = Some(number << 20);
            vm.nics.iter_mut().for_each(|nic| {
                nic.device = format!("tap{number}");
                nic.rx.bytes = Some(number * 987_654_321);
                nic.tx.packets = Some(number * 7_654_321);
            });
            vm
        };
        snapshot.vms = (0..100).map(numbered).collect();
        let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(Some(snapshot)).1);
        let scrapes = Scrapes::new(exporter);
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for accept in ["text/plain", protobuf] {
            let plain = body(&scrapes, &[(header::ACCEPT, accept)]).await;
            let gzip = [(header::ACCEPT, accept), (header::ACCEPT_ENCODING, "gzip")];
            let compressed = body(&scrapes, &gzip).await;
            println!(
                "/metrics of 100 VMs as {accept}: {} bytes, {} with gzip",
                plain.len(),
                compressed.len()
            );
            assert!(compressed.len() * 10 < plain.len(), "{accept}");
        }
    }

    #[tokio::test]
    async fn before_the_first_tick_there_is_no_answer() {
        let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(None).1);
        let answer = metrics(State(Scrapes::new(exporter)), HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
