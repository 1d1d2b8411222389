//! The attributes that labels become.

use opentelemetry::{Key, Value};

use super::super::instrument::Attribute;

/// How the conventions say whether bytes come or go, from the view of the guest.
pub(super) const DIRECTION: &str = "network.io.direction";

/// Reads the value of a label.
type Read = fn(&str) -> Value;

/// A label and its attribute.
pub(super) const ATTRIBUTES: &[(&str, &str, Read)] = &[
    ("instance_id", "vm.id", text),
    ("instance_name", "vm.name", text),
    ("hypervisor", "vm.hypervisor", text),
    ("project", "vm.project", text),
    ("pid", "process.pid", number),
    ("vcpu", "cpu.logical_number", number),
    ("state", "vm.state", text),
    ("device", "network.interface.name", text),
    ("netns", "vm.network.namespace", text),
    ("nic", "vm.network.nic", text),
    ("kind", "vm.network.kind", text),
    ("source", "vm.network.source", text),
    ("attach", "vm.network.attach", text),
    ("direction", DIRECTION, direction),
    ("protocol", "network.type", text),
    ("transport", "network.transport", text),
    ("destination", "vm.network.destination", text),
    ("reason", "vm.network.drop.reason", text),
    ("version", "service.version", text),
    ("ebpf", "vm.exporter.ebpf", text),
    ("reader", "vm.exporter.reader", text),
    ("component", "vm.exporter.component.name", text),
    ("user", "user.id", text),
    ("resource", "vm.exporter.resource", text),
    ("exporter", "vm.exporter.name", text),
    ("result", "vm.exporter.result", text),
];

/// Labels of a metric that mean something else than those of the others.
pub(super) const OF_METRIC: &[(&str, &str, &str)] = &[
    ("component_health", "kind", "vm.exporter.component.kind"),
    ("component_health", "state", "vm.exporter.component.state"),
    ("source_duration_seconds_total", "source", OF_SOURCE),
    ("source_runs_total", "source", OF_SOURCE),
    ("source_errors_total", "source", OF_SOURCE),
    ("source_success", "source", OF_SOURCE),
    ("source_instances", "source", OF_SOURCE),
];

const OF_SOURCE: &str = "vm.exporter.source";

/// A label without an entry keeps its name; a test finds it.
pub(super) fn attribute(metric: &str, label: &'static str) -> Attribute {
    let of_metric = OF_METRIC.iter().find(|(of, name, _)| *of == metric && *name == label);
    if let Some((.., key)) = of_metric {
        return Attribute { key: Key::from_static_str(key), value: text };
    }
    let known = ATTRIBUTES.iter().find(|(name, ..)| *name == label);
    let (key, value) = known.map_or((label, text as Read), |(_, key, value)| (*key, *value));
    Attribute { key: Key::from_static_str(key), value }
}

fn text(value: &str) -> Value {
    value.to_owned().into()
}

/// Text where it is no number.
fn number(value: &str) -> Value {
    value.parse::<i64>().map_or_else(|_| text(value), Value::from)
}

fn direction(value: &str) -> Value {
    Value::from(match value {
        "rx" => "receive",
        _ => "transmit",
    })
}
