//! The one HTTP server: `/metrics`, `/api/v1`, `/-/healthy` and `/-/ready`.
//!
//! Healthy means that ticks end. Ready means that a first snapshot exists; the daemon then stays ready.

mod activity;
mod api;
mod coding;
mod connections;
mod gzip;
mod hosts;
mod listen;
mod listeners;
mod metrics;
mod open_connections;
mod peer;
pub(crate) mod port_user;
mod problem;
pub mod push;
mod rate;
mod shared_body;
pub(crate) mod socket_owner;
mod unix_socket;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::config::HttpSettings;
use crate::exporters::json::Detail;
use crate::exporters::prometheus::PrometheusExporter;
use crate::manager::Ticker;

pub use api::Description;
pub use connections::serve;
pub use listen::listen;
pub use unix_socket::{OWNER, UnixSocket};

const INDEX: &str =
    "<h1>vm-metrics</h1><p><a href=\"/metrics\">metrics</a> <a href=\"/api/v1/vms\">VMs</a></p>";

/// The content of the server. All listeners share its renderings.
#[derive(Clone, Debug)]
pub struct Site {
    scrapes: metrics::Scrapes,
    api: api::Api,
    ticker: Ticker,
}

impl Site {
    pub fn new(exporter: PrometheusExporter, ticker: Ticker) -> Self {
        Self { scrapes: metrics::Scrapes::new(exporter), api: api::Api::new(ticker.clone()), ticker }
    }

    /// The routes for the addresses of the key `listen`, which are open to all.
    pub fn for_everybody(&self, settings: &HttpSettings) -> Router {
        let detail = if settings.show_errors { Detail::Full } else { Detail::Counts };
        self.router(detail).layer(from_fn_with_state(hosts::Hosts::new(&settings.hosts), hosts::check))
    }

    /// The routes for the Unix socket of the administrators.
    pub fn for_operators(&self) -> Router {
        self.router(Detail::Full)
    }

    fn router(&self, detail: Detail) -> Router {
        let state = Router::new()
            .route("/-/healthy", get(healthy))
            .route("/-/ready", get(ready))
            .with_state(self.ticker.clone());
        Router::new()
            .route("/", get(async || Html(INDEX)))
            .merge(metrics::router(self.scrapes.clone()))
            .merge(state)
            .merge(api::router(self.api.clone(), detail))
            .fallback(problem::not_found)
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
