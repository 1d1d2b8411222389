//! A reader that forgets a gauge that is not observed any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, Pipeline, Temporality};

/// Shows a gauge only when it was observed for this very export; all else as the reader inside does.
///
/// The SDK repeats the last value of a gauge in every export of cumulative temporality, for as long as the process lives:
/// the memory of VMs that are long gone, and numbers that are not known any more. With delta temporality it forgets. What
/// goes over the wire is the same, for a gauge has no temporality there.
///
/// Clones are one reader: the meter provider takes one, and who collects by hand has another.
#[derive(Debug)]
pub struct ForgettingReader<R>(Arc<R>);

impl<R> Clone for ForgettingReader<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: MetricReader> ForgettingReader<R> {
    pub fn new(reader: R) -> Self {
        Self(Arc::new(reader))
    }
}

impl<R: MetricReader> MetricReader for ForgettingReader<R> {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        match kind {
            InstrumentKind::Gauge | InstrumentKind::ObservableGauge => Temporality::Delta,
            _ => self.0.temporality(kind),
        }
    }
}
