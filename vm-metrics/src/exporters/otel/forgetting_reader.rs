//! A reader that forgets gauges that are no longer observed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, Pipeline, Temporality};

/// Shows a gauge only when it was observed for this very export; all else as the reader inside does.
///
/// With cumulative temporality the SDK repeats the last value of a gauge in every export, also when its VM has ended. With
/// delta temporality it forgets. The bytes on the wire are the same, as a gauge has no temporality there.
///
/// Clones are one reader: the meter provider takes one, and another collects by hand.
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
