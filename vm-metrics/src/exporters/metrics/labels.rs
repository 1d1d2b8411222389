//! The labels that several metrics have, each with its attribute of OpenTelemetry.

/// A label of `/metrics`, and the attribute by the semantic conventions that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: &'static str,
    pub attribute: &'static str,
    pub value: LabelValue,
}

/// How an attribute writes the value of its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelValue {
    Text,
    /// As a whole number, where it is one.
    Number,
    /// `rx` is `receive`, `tx` is `transmit`, as the guest sees it.
    Direction,
}

pub const fn text(name: &'static str, attribute: &'static str) -> Label {
    Label { name, attribute, value: LabelValue::Text }
}

pub const fn number(name: &'static str, attribute: &'static str) -> Label {
    Label { name, attribute, value: LabelValue::Number }
}

pub const ID: Label = text("instance_id", "vm.id");
pub const NAME: Label = text("instance_name", "vm.name");
pub const HYPERVISOR: Label = text("hypervisor", "vm.hypervisor");
pub const DEVICE: Label = text("device", "network.interface.name");
/// Empty, and so left out, for a device in the daemon's own network namespace.
pub const NETNS: Label = text("netns", "vm.network.namespace");
pub const DIRECTION: Label =
    Label { name: "direction", attribute: "network.io.direction", value: LabelValue::Direction };

/// Of a metric that a VM has once.
pub const VM: &[Label] = &[ID, NAME];

/// Of a metric that a network interface has once.
pub const NIC: &[Label] = &[ID, NAME, DEVICE, NETNS];
