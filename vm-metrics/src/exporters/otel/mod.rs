//! OpenTelemetry: metrics as observable instruments of a meter.
//!
//! Their names are those of `/metrics`, or follow the semantic conventions. An SDK calls each instrument by itself, but all
//! show one snapshot: see `collections`.

mod basic;
mod collections;
mod forgetting_reader;
mod instrument;
mod naming;
mod selection;

use std::fmt;

use opentelemetry::metrics::Meter;

pub use forgetting_reader::ForgettingReader;
pub(super) use instrument::{Instrument, register};
pub use naming::Naming;
pub use selection::{Instruments, MetricGroup};

pub use super::budget::OverBudget;

use super::budget::{Budget, LabelBudget};
use super::exporter_stats::ExporterStats;
use super::families;
use super::metrics::SeriesGroup;
use super::view::View;
use crate::manager::{DEFAULT_LABEL_BUDGET, Manager};
use collections::Collections;

/// The instruments of a program, and their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelOptions {
    /// First part of the name of every metric of a VM.
    pub prefix: String,
    pub instruments: Instruments,
    pub naming: Naming,
    /// The behaviour for VMs beyond the budget of [`Manager::set_vm_label_budget`].
    pub over_budget: OverBudget,
}

/// The instruments that dashboards of Go programs show.
impl Default for OtelOptions {
    fn default() -> Self {
        Self {
            prefix: "hypeman_vm".to_owned(),
            instruments: Instruments::default(),
            naming: Naming::default(),
            over_budget: OverBudget::default(),
        }
    }
}

impl Manager {
    /// Shows the nine metrics of Go programs on this meter, as observable instruments; does nothing without a meter. Call it
    /// once per meter.
    ///
    /// They are `hypeman_vm_cpu_seconds_total`, `…_allocated_vcpus`, `…_memory_rss_bytes`, `…_memory_vms_bytes`,
    /// `…_allocated_memory_bytes`, `…_network_rx_bytes_total`, `…_network_tx_bytes_total`, `…_metrics_instances_observed` and
    /// `…_metrics_label_budget_exceeded_total`. [`initialize_otel_with`](Self::initialize_otel_with) shows more.
    ///
    /// Who collects from the meter makes the manager read its VMs, unless it has done so less than 0.1 s ago; then all
    /// instruments show that one look. They do not keep the manager alive, and show nothing once it is gone.
    ///
    /// Readers of the SDK with cumulative temporality repeat the last value of a gauge for ever, also when its VM is gone;
    /// put them in a [`ForgettingReader`]. The SDK also adds up what is beyond 2000 series of an instrument, unless a view
    /// allows more.
    ///
    /// ```
    /// use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
    /// use vm_metrics::opentelemetry::metrics::MeterProvider;
    /// use vm_metrics::{Manager, otel::ForgettingReader};
    ///
    /// let reader = ForgettingReader::new(ManualReader::default());
    /// let provider = SdkMeterProvider::builder().with_reader(reader).build();
    /// let manager = Manager::new();
    /// manager.initialize_otel(Some(&provider.meter("my-orchestrator")));
    /// ```
    pub fn initialize_otel(&self, meter: Option<&Meter>) {
        self.initialize_otel_with(meter, OtelOptions::default());
    }

    /// As [`initialize_otel`](Self::initialize_otel), with other instruments and names.
    ///
    /// ```
    /// use opentelemetry_sdk::metrics::SdkMeterProvider;
    /// use vm_metrics::otel::{Instruments, MetricGroup, Naming, OtelOptions};
    /// use vm_metrics::{Manager, opentelemetry::metrics::MeterProvider};
    ///
    /// let provider = SdkMeterProvider::builder().build();
    /// let instruments = Instruments::Groups(vec![MetricGroup::Vms, MetricGroup::Interfaces]);
    /// let naming = Naming::Otel;
    /// let options = OtelOptions { prefix: "vm".to_owned(), instruments, naming, ..OtelOptions::default() };
    /// Manager::new().initialize_otel_with(Some(&provider.meter("my-orchestrator")), options);
    /// ```
    pub fn initialize_otel_with(&self, meter: Option<&Meter>, options: OtelOptions) {
        let Some(meter) = meter else { return };
        let OtelOptions { prefix, instruments, naming, over_budget } = options;
        let (manager, label_budget) = (self.downgrade(), self.label_budget());
        let budget = LabelBudget::new("otel", Budget { vms: DEFAULT_LABEL_BUDGET, over: over_budget });
        let budget = if instruments == Instruments::Basic { budget.without_ended() } else { budget };
        let mut stats = ExporterStats::starting();
        stats.add_budget(budget.counts());
        let view = View::new(stats, budget, vec![SeriesGroup::All]);
        let names = instruments.names();
        let shown = names.iter().enumerate().filter(|(_, family)| instruments.contains(family));
        register(meter, naming.instruments(&prefix, shown), move || {
            let snapshot = manager.recent()?;
            let budget = label_budget();
            view.set_label_budget(if budget == 0 { usize::MAX } else { budget });
            Some(instruments.look(&view, &snapshot))
        });
    }
}

/// An instrument for every metric that [`View::look`] gives.
pub(super) fn all(prefix: &str, naming: Naming) -> Vec<Instrument> {
    naming.instruments(prefix, families::names().iter().enumerate())
}

impl fmt::Debug for Collections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collections").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
