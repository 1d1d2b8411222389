//! The exporter of the SDK with a timeout, counts and log lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;

use super::http_client::LastFailure;
use crate::exporters::exporter_stats::PushStats;

#[derive(Debug)]
pub(super) struct ReportingExporter {
    pub(super) inner: MetricExporter,
    pub(super) endpoint: String,
    pub(super) runtime: Handle,
    pub(super) counts: Arc<PushStats>,
    pub(super) failure: LastFailure,
    pub(super) fails: AtomicBool,
}

impl ReportingExporter {
    /// Blocks the thread that pushes; the network has another thread.
    pub(super) fn export(&self, metrics: &ResourceMetrics, timeout: Duration) -> OTelSdkResult {
        let export = async { tokio::time::timeout(timeout, self.inner.export(metrics)).await };
        self.runtime.block_on(export).unwrap_or(Err(OTelSdkError::Timeout(timeout)))
    }

    /// Counts a push with all its requests. Logs when pushes begin to fail, and when they work again.
    pub(super) fn account_for(&self, result: &OTelSdkResult) {
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
