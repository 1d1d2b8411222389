//! Metrics of a network interface that only the eBPF programs count, since they were attached.

use super::labels::{DEVICE, DIRECTION, ID, Label, NAME, NETNS, text};
use super::nic::{RECEIVE, TRANSMIT, counter, each_since, netns};
use super::{Convention, Count, Kind, Metric, Samples, SeriesGroup, Sink, SnapshotView, otel, shared};
use crate::model::{DirectionStats, NicStats};

const EBPF: &str = "eBPF on the TAP";

const WIRE_IO: Convention = shared(
    "network.wire.io",
    "Bytes since the attach as the wire would carry them: every segment with its headers. Received is offered.",
);
const WIRE_PACKETS: Convention = shared(
    "network.wire.packet.count",
    "Packets since the attach as the wire would carry them: a GSO frame counts as its segments. Received is offered.",
);

pub(super) const METRICS: &[Metric] = &[
    counter(
        "network_rx_offered_bytes_total",
        "By",
        "Bytes the host offered to the guest since the attach: received, dropped, or in the backlog.",
        EBPF,
        otel("network.offered.io"),
        Count(|view, sink| attached(view, sink, |nic| Some(nic.ebpf?.offered?.bytes))),
    ).of(SeriesGroup::Wire),
    counter(
        "network_rx_offered_packets_total",
        "{packet}",
        "Packets the host offered to the guest since the attach: received, dropped, or in the backlog.",
        EBPF,
        otel("network.offered.packet.count"),
        Count(|view, sink| attached(view, sink, |nic| Some(nic.ebpf?.offered?.packets))),
    ).of(SeriesGroup::Wire),
    counter(
        "network_rx_wire_packets_total",
        "{packet}",
        "Packets offered to the guest since the attach as the wire would carry them: a GSO frame counts as its segments.",
        EBPF,
        WIRE_PACKETS.with(RECEIVE),
        Count(|view, sink| attached(view, sink, |nic| nic.ebpf?.rx.wire_packets)),
    ).of(SeriesGroup::Wire),
    counter(
        "network_tx_wire_packets_total",
        "{packet}",
        "Packets the guest sent since the attach as the wire would carry them: a GSO frame counts as its segments.",
        EBPF,
        WIRE_PACKETS.with(TRANSMIT),
        Count(|view, sink| attached(view, sink, |nic| nic.ebpf?.tx.wire_packets)),
    ).of(SeriesGroup::Wire),
    counter(
        "network_rx_wire_bytes_total",
        "By",
        "Bytes offered to the guest since the attach as the wire would carry them: every segment with its headers.",
        EBPF,
        WIRE_IO.with(RECEIVE),
        Count(|view, sink| attached(view, sink, |nic| nic.ebpf?.rx.wire_bytes)),
    ).of(SeriesGroup::Wire),
    counter(
        "network_tx_wire_bytes_total",
        "By",
        "Bytes the guest sent since the attach as the wire would carry them: every segment with its headers.",
        EBPF,
        WIRE_IO.with(TRANSMIT),
        Count(|view, sink| attached(view, sink, |nic| nic.ebpf?.tx.wire_bytes)),
    ).of(SeriesGroup::Wire),
    by(
        "network_gso_packets_total",
        "GSO frames since the attach: each is more than one packet on the wire.",
        &[ID, NAME, DEVICE, NETNS, DIRECTION],
        otel("network.gso.packet.count"),
        Count(|view, sink| each_kind(view, sink, &[("", |stats| stats.gso_packets)])),
    ).of(SeriesGroup::Wire),
    by(
        "network_packets_by_protocol_total",
        "Packets since the attach, by network protocol; rx is offered.",
        &[ID, NAME, DEVICE, NETNS, DIRECTION, text("protocol", "network.type")],
        otel("network.type.packet.count"),
        Count(|view, sink| {
            each_kind(
                view,
                sink,
                &[
                    ("ipv4", |stats| stats.ipv4),
                    ("ipv6", |stats| stats.ipv6),
                    ("arp", |stats| stats.arp),
                    ("other", |stats| stats.other_l3),
                ],
            );
        }),
    ),
    by(
        "network_packets_by_transport_total",
        "IP packets since the attach, by transport protocol; icmp includes ICMPv6; rx is offered.",
        &[ID, NAME, DEVICE, NETNS, DIRECTION, text("transport", "network.transport")],
        otel("network.transport.packet.count"),
        Count(|view, sink| {
            each_kind(
                view,
                sink,
                &[
                    ("tcp", |stats| stats.tcp),
                    ("udp", |stats| stats.udp),
                    ("icmp", |stats| stats.icmp),
                    ("other", |stats| stats.other_l4),
                ],
            );
        }),
    ),
    by(
        "network_packets_by_destination_total",
        "Packets since the attach, by destination address; rx is offered.",
        &[ID, NAME, DEVICE, NETNS, DIRECTION, text("destination", "vm.network.destination")],
        otel("network.destination.packet.count"),
        Count(|view, sink| {
            each_kind(
                view,
                sink,
                &[
                    ("unicast", |stats| stats.unicast),
                    ("multicast", |stats| stats.multicast),
                    ("broadcast", |stats| stats.broadcast),
                ],
            );
        }),
    ),
];

/// Packets that only eBPF counts, of both directions.
const fn by(
    name: &'static str,
    help: &'static str,
    labels: &'static [Label],
    otel: Convention,
    samples: Samples,
) -> Metric {
    Metric {
        name,
        group: SeriesGroup::Protocols,
        kind: Kind::Counter,
        unit: "{packet}",
        help,
        origin: EBPF,
        labels,
        otel,
        samples,
    }
}

/// Numbers that only the programs count.
fn attached(view: &SnapshotView<'_>, sink: Sink<'_, u64>, value: impl Fn(&NicStats) -> Option<u64>) {
    each_since(view, sink, |nic| nic.since.ebpf, value);
}

/// One counter of a direction.
type Part = fn(&DirectionStats<Option<u64>>) -> Option<u64>;

/// Both directions, split by a last label; an empty name stands for no such label.
fn each_kind(view: &SnapshotView<'_>, sink: Sink<'_, u64>, kinds: &[(&str, Part)]) {
    for (vm, nic) in view.nics() {
        let Some(ebpf) = &nic.ebpf else { continue };
        let netns = netns(&nic);
        for (direction, stats) in [("rx", &ebpf.rx), ("tx", &ebpf.tx)] {
            for (kind, value) in kinds {
                let Some(value) = value(stats) else { continue };
                let labels =
                    [vm.instance_id.as_str(), &vm.instance_name, &nic.device, &netns, direction, kind];
                let labels = if kind.is_empty() { &labels[..5] } else { &labels[..] };
                sink(labels, value, nic.since.ebpf);
            }
        }
    }
}
