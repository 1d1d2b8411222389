//! Registers observable instruments on a meter, and shows them the families of each collection.

use std::sync::Arc;

use opentelemetry::metrics::{AsyncInstrument, AsyncInstrumentBuilder, Meter};
use opentelemetry::{Key, KeyValue, Value};

use super::collections::Collections;
use crate::exporters::families::Family;
use crate::exporters::metrics::labels::LabelValue;
use crate::exporters::metrics::{InstrumentKind, Number};

/// An instrument to register, and the families that it shows.
pub(in crate::exporters) struct Instrument {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: InstrumentKind,
    /// Its numbers are sent as integers.
    pub(super) is_whole: bool,
    pub(super) series: Vec<Series>,
}

/// The samples of one family as data points.
pub(super) struct Series {
    /// Its index in the families of a look.
    pub(super) family: usize,
    /// One for each label.
    pub(super) attributes: Vec<Attribute>,
    /// One that all points have.
    pub(super) fixed: Option<KeyValue>,
}

/// The attribute that a label becomes.
pub(super) struct Attribute {
    pub(super) key: Key,
    pub(super) value: LabelValue,
}

/// Registers the instruments. `look` is called once per collection.
pub(in crate::exporters) fn register(
    meter: &Meter,
    instruments: Vec<Instrument>,
    look: impl Fn() -> Option<Vec<Family>> + Send + Sync + 'static,
) {
    let collections = Arc::new(Collections::new(instruments.len(), look));
    for (index, Instrument { name, unit, help, kind, is_whole, series }) in
        instruments.into_iter().enumerate()
    {
        let collections = Arc::clone(&collections);
        let show: Callback = Box::new(move |observe| {
            collections
                .visit(index, |families| series.iter().for_each(|series| series.show(families, observe)));
        });
        let parts = InstrumentParts { unit, help, show };
        match (kind, is_whole) {
            (InstrumentKind::Counter, true) => {
                parts.build(meter.u64_observable_counter(name), |n| n.as_i64().max(0) as u64).build();
            }
            (InstrumentKind::Counter, false) => {
                parts.build(meter.f64_observable_counter(name), Number::as_f64).build();
            }
            (InstrumentKind::UpDownCounter, true) => {
                parts.build(meter.i64_observable_up_down_counter(name), Number::as_i64).build();
            }
            (InstrumentKind::UpDownCounter, false) => {
                parts.build(meter.f64_observable_up_down_counter(name), Number::as_f64).build();
            }
            (InstrumentKind::Gauge, true) => {
                parts.build(meter.i64_observable_gauge(name), Number::as_i64).build();
            }
            (InstrumentKind::Gauge, false) => {
                parts.build(meter.f64_observable_gauge(name), Number::as_f64).build();
            }
        }
    }
}

/// Takes a number and its attributes.
pub(super) type PointSink<'o> = &'o mut dyn FnMut(Number, &[KeyValue]);

type Callback = Box<dyn Fn(PointSink<'_>) + Send + Sync>;

/// The parts of an instrument that do not depend on the type of its numbers.
struct InstrumentParts {
    unit: &'static str,
    help: &'static str,
    show: Callback,
}

impl InstrumentParts {
    fn build<I, N: 'static>(
        self,
        builder: AsyncInstrumentBuilder<'_, I, N>,
        number: fn(Number) -> N,
    ) -> AsyncInstrumentBuilder<'_, I, N> {
        let observe = move |instrument: &dyn AsyncInstrument<N>| {
            (self.show)(&mut |value, attributes| instrument.observe(number(value), attributes));
        };
        builder.with_unit(self.unit).with_description(self.help).with_callback(observe)
    }
}

impl Series {
    pub(super) fn show(&self, families: &[Family], observe: PointSink<'_>) {
        let Some(family) = families.get(self.family) else { return };
        for sample in &family.samples {
            let labels = self.attributes.iter().zip(&sample.labels).filter(|(_, value)| !value.is_empty());
            let pair = |(attribute, text): (&Attribute, &String)| {
                KeyValue::new(attribute.key.clone(), value(attribute.value, text))
            };
            let mut attributes: Vec<KeyValue> = labels.map(pair).chain(self.fixed.clone()).collect();
            // The SDK keeps a point twice whose attributes come in another order.
            attributes.sort_by(|a, b| a.key.cmp(&b.key));
            observe(sample.value, &attributes);
        }
    }
}

fn value(of: LabelValue, text: &str) -> Value {
    let as_text = || text.to_owned().into();
    match of {
        LabelValue::Text => as_text(),
        LabelValue::Number => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
        LabelValue::Direction => if text == "rx" { "receive" } else { "transmit" }.into(),
    }
}
