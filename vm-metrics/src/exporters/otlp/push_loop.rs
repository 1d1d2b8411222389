//! The thread that pushes the latest snapshot, chunk by chunk.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
use tokio::sync::oneshot;

use super::chunks::chunks;
use super::reporting_exporter::ReportingExporter;
use crate::exporters::View;
use crate::exporters::families::Family;
use crate::exporters::otel::ForgettingReader;
use crate::manager::Ticker;

/// The families that the instruments show at the next collection.
pub(super) type NextChunk = Arc<Mutex<Option<Vec<Family>>>>;

pub(super) struct PushLoop {
    pub(super) ticker: Ticker,
    pub(super) view: View,
    pub(super) chunk: NextChunk,
    pub(super) reader: ForgettingReader<ManualReader>,
    /// Held because the reader has only a weak reference to it.
    pub(super) _provider: SdkMeterProvider,
    pub(super) exporter: ReportingExporter,
    pub(super) interval: Duration,
    /// For a push with all its requests and their retries.
    pub(super) timeout: Duration,
}

impl PushLoop {
    /// Runs until `leave` is closed or gets a sender, which then learns whether the last push arrived.
    pub(super) fn run(self, leave: &Receiver<oneshot::Sender<bool>>) {
        let mut took = Duration::ZERO;
        loop {
            match leave.recv_timeout(self.interval.saturating_sub(took)) {
                Err(RecvTimeoutError::Timeout) => {
                    let began = Instant::now();
                    let _ = self.push();
                    took = began.elapsed();
                }
                Ok(waiting) => {
                    let _ = waiting.send(self.push().is_ok());
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn push(&self) -> OTelSdkResult {
        let Some(snapshot) = self.ticker.latest() else { return Ok(()) };
        let began = Instant::now();
        let families = self.view.look(&snapshot, self.ticker.is_stale(&snapshot));
        let mut metrics = ResourceMetrics::default();
        let result = chunks(families).into_iter().try_for_each(|chunk| {
            *self.chunk.lock().unwrap_or_else(PoisonError::into_inner) = Some(chunk);
            self.reader.collect(&mut metrics)?;
            self.exporter.export(&metrics, self.timeout.saturating_sub(began.elapsed()))
        });
        self.exporter.account_for(&result);
        result
    }
}
