//! Metrics of a network interface, in the guest's words: rx is received, tx is sent.

use super::labels::{DIRECTION, NIC};
use super::{
    Attribute, Convention, Count, Kind, Metric, Samples, SeriesGroup, Since, Sink, SnapshotView, otel, shared,
};
use crate::model::NicStats;

const TAP: &str = "the TAP's counters";
const EITHER: &str = "eBPF on the TAP, continued from the TAP's counters; else the TAP's counters";

pub(super) const RECEIVE: Attribute = (DIRECTION.attribute, "receive");
pub(super) const TRANSMIT: Attribute = (DIRECTION.attribute, "transmit");

const IO: Convention = shared("network.io", "Bytes the guest received and sent.");
const PACKETS: Convention =
    shared("network.packet.count", "Packets the guest received and sent; a GSO frame is one.");
pub(super) const DROPPED: Convention = shared(
    "network.packet.dropped",
    "Packets for the guest that were dropped, with the reason, and packets of the guest that the host refused.",
);
const ERRORS: Convention = shared("network.errors", "Errors of the TAP on the way to the guest and from it.");

pub const RX_BYTES: Metric = counter(
    "network_rx_bytes_total",
    "By",
    "Bytes the guest received.",
    TAP,
    IO.with(RECEIVE),
    Count(|view, sink| each(view, sink, |nic| nic.rx.bytes)),
);
pub const TX_BYTES: Metric = counter(
    "network_tx_bytes_total",
    "By",
    "Bytes the guest sent.",
    EITHER,
    IO.with(TRANSMIT),
    Count(|view, sink| each(view, sink, |nic| nic.tx.bytes)),
);

pub(super) const TRAFFIC: &[Metric] = &[
    RX_BYTES,
    TX_BYTES,
    counter(
        "network_rx_packets_total",
        "{packet}",
        "Packets the guest received; a GSO frame is one.",
        TAP,
        PACKETS.with(RECEIVE),
        Count(|view, sink| each(view, sink, |nic| nic.rx.packets)),
    ),
    counter(
        "network_tx_packets_total",
        "{packet}",
        "Packets the guest sent; a GSO frame is one.",
        EITHER,
        PACKETS.with(TRANSMIT),
        Count(|view, sink| each(view, sink, |nic| nic.tx.packets)),
    ),
];

/// Numbers of the way to the guest and from it that are no traffic.
pub(super) const BACKLOG: &[Metric] = &[
    backlog(
        "network_rx_backlog_packets",
        "{packet}",
        "Packets that wait for the guest: offered, less received and dropped.",
        otel("network.backlog.packet.count"),
        Count(|view, sink| now(view, sink, |nic| nic.rx_backlog_packets)),
    )
    .of(SeriesGroup::Queues),
    backlog(
        "network_rx_backlog_bytes",
        "By",
        "Bytes that wait for the guest: offered, less received and dropped.",
        otel("network.backlog.size"),
        Count(|view, sink| now(view, sink, |nic| nic.rx_backlog_bytes)),
    )
    .of(SeriesGroup::Queues),
    counter(
        "network_tx_dropped_packets_total",
        "{packet}",
        "Packets of the guest that the host refused, for example while the TAP was down.",
        TAP,
        DROPPED.with(TRANSMIT),
        Count(|view, sink| each(view, sink, |nic| nic.tx.dropped)),
    ),
    counter(
        "network_rx_errors_total",
        "{error}",
        "Errors of the TAP on the way to the guest.",
        TAP,
        ERRORS.with(RECEIVE),
        Count(|view, sink| each(view, sink, |nic| nic.rx.errors)),
    )
    .of(SeriesGroup::Queues),
    counter(
        "network_tx_errors_total",
        "{error}",
        "Errors of the TAP on the way from the guest.",
        TAP,
        ERRORS.with(TRANSMIT),
        Count(|view, sink| each(view, sink, |nic| nic.tx.errors)),
    )
    .of(SeriesGroup::Queues),
];

pub(super) const fn counter(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    origin: &'static str,
    otel: Convention,
    samples: Samples,
) -> Metric {
    super::counter(name, unit, help, origin, NIC, otel, samples)
}

const fn backlog(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    otel: Convention,
    samples: Samples,
) -> Metric {
    Metric {
        name,
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit,
        help,
        origin: "computed",
        labels: NIC,
        otel,
        samples,
    }
}

pub(super) fn netns(nic: &NicStats) -> String {
    nic.netns.map(|inode| inode.to_string()).unwrap_or_default()
}

/// Numbers that the device counts.
pub(super) fn each(view: &SnapshotView<'_>, sink: Sink<'_, u64>, value: impl Fn(&NicStats) -> Option<u64>) {
    each_since(view, sink, |nic| nic.since.device, value);
}

fn now(view: &SnapshotView<'_>, sink: Sink<'_, u64>, value: impl Fn(&NicStats) -> Option<u64>) {
    each_since(view, sink, |_| None, value);
}

pub(super) fn each_since(
    view: &SnapshotView<'_>,
    sink: Sink<'_, u64>,
    since: impl Fn(&NicStats) -> Since,
    value: impl Fn(&NicStats) -> Option<u64>,
) {
    for (vm, nic) in view.nics() {
        if let Some(value) = value(&nic) {
            let labels = [&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)];
            sink(&labels.map(String::as_str), value, since(&nic));
        }
    }
}
