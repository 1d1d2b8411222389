//! The exporter of the SDK, with an end to its patience; counts how it went, and says so when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;

use super::http_client::LastFailure;
use crate::exporters::exports::PushCounts;

#[derive(Debug)]
pub(super) struct Counted {
    pub(super) inner: MetricExporter,
    pub(super) endpoint: String,
    /// For an export with all its retries.
    pub(super) timeout: Duration,
    pub(super) runtime: Handle,
    pub(super) counts: Arc<PushCounts>,
    pub(super) failure: LastFailure,
    pub(super) fails: AtomicBool,
}

impl PushMetricExporter for Counted {
    /// Waits on the thread of the reader, which has nothing else to do; the network is another thread's.
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let export = async { tokio::time::timeout(self.timeout, self.inner.export(metrics)).await };
        let result = self.runtime.block_on(export).unwrap_or(Err(OTelSdkError::Timeout(self.timeout)));
        self.account_for(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

impl Counted {
    /// One line when it begins to fail, one when it works again.
    fn account_for(&self, result: &OTelSdkResult) {
        let reason = self.failure.take();
        match result {
            Ok(()) => {
                self.counts.succeeded();
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!("otlp: {} takes what is pushed again", self.endpoint);
                }
            }
            Err(error) => {
                self.counts.failed();
                if !self.fails.swap(true, Ordering::Relaxed) {
                    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                    tracing::warn!("otlp: cannot push to {}: {error}{reason}", self.endpoint);
                }
            }
        }
    }
}
