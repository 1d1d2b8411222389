//! OpenTelemetry: every metric as an observable instrument of a meter, under the very names that Prometheus sees.
//!
//! What an SDK exports at one time is of one snapshot, though it calls each instrument by itself: see `collections`.

mod collections;
mod reader;
mod units;

use std::fmt;
use std::sync::Arc;

use opentelemetry::metrics::{AsyncInstrument, AsyncInstrumentBuilder, Meter};
use opentelemetry::{Key, KeyValue};

pub use reader::ForgettingReader;

use super::budget::{Budget, LabelBudget, OverBudget};
use super::exports::Exports;
use super::families::{self, Family};
use super::metrics::Kind;
use super::view::View;
use crate::manager::Manager;
use collections::Collections;

/// The budget of what nobody has set one for.
pub const DEFAULT_BUDGET: Budget = Budget { vms: 200, over: OverBudget::Warn };

/// How the instruments are called and how many series they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelOptions {
    /// First part of the name of every VM metric.
    pub prefix: String,
    pub budget: Budget,
}

impl Default for OtelOptions {
    fn default() -> Self {
        Self { prefix: "vm".to_owned(), budget: DEFAULT_BUDGET }
    }
}

impl Manager {
    /// Shows every metric on this meter, as observable instruments; does nothing without a meter. Call it once per meter.
    ///
    /// Who collects from the meter makes the manager read its VMs, unless it has done so less than 0.1 s ago; then all
    /// instruments show that one look. They do not keep the manager alive, and show nothing once it is gone.
    ///
    /// Readers of the SDK with cumulative temporality repeat the last value of a gauge for ever, also when its VM is gone;
    /// put them in a [`ForgettingReader`]. The SDK also adds up what is beyond 2000 series of an instrument, unless a view
    /// allows more: the packets by protocol have eight per interface.
    ///
    /// ```
    /// use opentelemetry::metrics::MeterProvider;
    /// use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
    /// use vm_metrics::{Manager, exporters::otel::ForgettingReader};
    ///
    /// let reader = ForgettingReader::new(ManualReader::default());
    /// let provider = SdkMeterProvider::builder().with_reader(reader).build();
    /// let manager = Manager::new();
    /// manager.initialize_otel(Some(&provider.meter("my-orchestrator")));
    /// ```
    pub fn initialize_otel(&self, meter: Option<&Meter>) {
        self.initialize_otel_with(meter, OtelOptions::default());
    }

    /// As [`initialize_otel`](Self::initialize_otel), with names and a label budget of one's own; the prefix `hypeman_vm`
    /// has the names of existing dashboards.
    ///
    /// ```
    /// use opentelemetry::metrics::MeterProvider;
    /// use opentelemetry_sdk::metrics::SdkMeterProvider;
    /// use vm_metrics::{Manager, exporters::otel::OtelOptions};
    ///
    /// let provider = SdkMeterProvider::builder().build();
    /// let options = OtelOptions { prefix: "hypeman_vm".to_owned(), ..OtelOptions::default() };
    /// Manager::new().initialize_otel_with(Some(&provider.meter("my-orchestrator")), options);
    /// ```
    pub fn initialize_otel_with(&self, meter: Option<&Meter>, options: OtelOptions) {
        let Some(meter) = meter else { return };
        let manager = self.downgrade();
        let budget = LabelBudget::new("otel", options.budget);
        let mut exports = Exports::starting();
        exports.add_budget(budget.counts());
        let view = View::new(exports, budget);
        register(meter, &options.prefix, move || {
            let snapshot = manager.recent()?;
            Some(view.look(&snapshot, false))
        });
    }
}

/// Registers an instrument for every metric. `look` is called once per collection.
pub(super) fn register(
    meter: &Meter,
    prefix: &str,
    look: impl Fn() -> Option<Vec<Family>> + Send + Sync + 'static,
) {
    let names = families::names();
    let collections = Arc::new(Collections::new(names.len(), look));
    for (index, family) in names.into_iter().enumerate() {
        let name = family.full_name(prefix);
        let is_whole = units::is_whole(&name);
        let collections = Arc::clone(&collections);
        let described = Described {
            unit: units::unit(&name),
            help: family.help,
            show: Box::new(move |observe| collections.visit(index, |family| each(family, observe))),
        };
        match (family.kind, is_whole) {
            (Kind::Counter, true) => {
                described.of(meter.u64_observable_counter(name), |n| n as u64).build();
            }
            (Kind::Counter, false) => {
                described.of(meter.f64_observable_counter(name), |n| n).build();
            }
            (Kind::Gauge, true) => {
                described.of(meter.i64_observable_gauge(name), |n| n as i64).build();
            }
            (Kind::Gauge, false) => {
                described.of(meter.f64_observable_gauge(name), |n| n).build();
            }
        }
    }
}

/// Takes a number, and whose it is.
type Observe<'o> = &'o mut dyn FnMut(f64, &[KeyValue]);

type Show = Box<dyn Fn(Observe<'_>) + Send + Sync>;

/// What an instrument is, whatever the type of its numbers.
struct Described {
    unit: &'static str,
    help: &'static str,
    show: Show,
}

impl Described {
    fn of<I, N: 'static>(
        self,
        builder: AsyncInstrumentBuilder<'_, I, N>,
        number: fn(f64) -> N,
    ) -> AsyncInstrumentBuilder<'_, I, N> {
        let observe = move |instrument: &dyn AsyncInstrument<N>| {
            (self.show)(&mut |value, attributes| instrument.observe(number(value), attributes));
        };
        builder.with_unit(self.unit).with_description(self.help).with_callback(observe)
    }
}

fn each(family: &Family, observe: Observe<'_>) {
    for sample in &family.samples {
        let pairs = family.labels.iter().zip(&sample.labels).filter(|(_, value)| !value.is_empty());
        let mut attributes: Vec<KeyValue> =
            pairs.map(|(name, value)| KeyValue::new(Key::from_static_str(name), value.clone())).collect();
        // The SDK keeps what is in no order twice.
        attributes.sort_by(|a, b| a.key.cmp(&b.key));
        observe(sample.value, &attributes);
    }
}

impl fmt::Debug for Collections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collections").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
