//! Metrics of a network interface, in the guest's words: rx is received, tx is sent.

use super::{Kind, Metric, OfSnapshot, Push, Shown, Since, drops};
use crate::model::{DirectionStats, NicStats};

/// `netns` is empty, and so left out, for a device in the daemon's own network namespace.
pub(super) const NIC: &[&str] = &["instance_id", "instance_name", "device", "netns"];
const DEVICE: &str = "the TAP's counters";
const EBPF: &str = "eBPF on the TAP";
const EITHER: &str = "eBPF on the TAP, continued from the TAP's counters; else the TAP's counters";

pub(super) const METRICS: &[Metric] = &[
    counter("network_rx_bytes_total", "Bytes the guest received.", DEVICE, |s, p| {
        each(s, p, |nic| nic.rx.bytes)
    }),
    counter("network_tx_bytes_total", "Bytes the guest sent.", EITHER, |s, p| each(s, p, |nic| nic.tx.bytes)),
    counter("network_rx_packets_total", "Packets the guest received; a GSO frame is one.", DEVICE, |s, p| {
        each(s, p, |nic| nic.rx.packets)
    }),
    counter("network_tx_packets_total", "Packets the guest sent; a GSO frame is one.", EITHER, |s, p| {
        each(s, p, |nic| nic.tx.packets)
    }),
    drops::PACKETS,
    drops::BYTES,
    gauge(
        "network_rx_backlog_packets",
        "Packets that wait for the guest: offered, less received and dropped.",
        |s, p| gauges(s, p, |nic| nic.rx_backlog_packets),
    ),
    gauge(
        "network_rx_backlog_bytes",
        "Bytes that wait for the guest: offered, less received and dropped.",
        |s, p| gauges(s, p, |nic| nic.rx_backlog_bytes),
    ),
    counter(
        "network_tx_dropped_packets_total",
        "Packets of the guest that the host refused, for example while the TAP was down.",
        DEVICE,
        |s, p| each(s, p, |nic| nic.tx.dropped),
    ),
    counter("network_rx_errors_total", "Errors of the TAP on the way to the guest.", DEVICE, |s, p| {
        each(s, p, |nic| nic.rx.errors)
    }),
    counter("network_tx_errors_total", "Errors of the TAP on the way from the guest.", DEVICE, |s, p| {
        each(s, p, |nic| nic.tx.errors)
    }),
    counter(
        "network_rx_offered_bytes_total",
        "Bytes the host offered to the guest since the attach: received, dropped, or in the backlog.",
        EBPF,
        |s, p| attached(s, p, |nic| Some(nic.ebpf?.offered?.bytes)),
    ),
    counter(
        "network_rx_offered_packets_total",
        "Packets the host offered to the guest since the attach: received, dropped, or in the backlog.",
        EBPF,
        |s, p| attached(s, p, |nic| Some(nic.ebpf?.offered?.packets)),
    ),
    counter(
        "network_rx_wire_packets_total",
        "Packets offered to the guest since the attach as the wire would carry them: a GSO frame counts as its segments.",
        EBPF,
        |s, p| attached(s, p, |nic| nic.ebpf.map(|ebpf| ebpf.rx.wire_packets)),
    ),
    counter(
        "network_tx_wire_packets_total",
        "Packets the guest sent since the attach as the wire would carry them: a GSO frame counts as its segments.",
        EBPF,
        |s, p| attached(s, p, |nic| nic.ebpf.map(|ebpf| ebpf.tx.wire_packets)),
    ),
    counter(
        "network_rx_wire_bytes_total",
        "Bytes offered to the guest since the attach as the wire would carry them: every segment with its headers.",
        EBPF,
        |s, p| attached(s, p, |nic| nic.ebpf.map(|ebpf| ebpf.rx.wire_bytes)),
    ),
    counter(
        "network_tx_wire_bytes_total",
        "Bytes the guest sent since the attach as the wire would carry them: every segment with its headers.",
        EBPF,
        |s, p| attached(s, p, |nic| nic.ebpf.map(|ebpf| ebpf.tx.wire_bytes)),
    ),
    by(
        "network_gso_packets_total",
        "GSO frames since the attach: each is more than one packet on the wire.",
        &["instance_id", "instance_name", "device", "netns", "direction"],
        |s, p| each_kind(s, p, &[("", |mix| mix.gso_packets)]),
    ),
    by(
        "network_packets_by_protocol_total",
        "Packets since the attach, by network protocol; rx is offered.",
        &["instance_id", "instance_name", "device", "netns", "direction", "protocol"],
        |s, p| {
            each_kind(
                s,
                p,
                &[
                    ("ipv4", |mix| mix.ipv4),
                    ("ipv6", |mix| mix.ipv6),
                    ("arp", |mix| mix.arp),
                    ("other", |mix| mix.other_l3),
                ],
            );
        },
    ),
    by(
        "network_packets_by_transport_total",
        "IP packets since the attach, by transport protocol; icmp includes ICMPv6; rx is offered.",
        &["instance_id", "instance_name", "device", "netns", "direction", "transport"],
        |s, p| {
            each_kind(
                s,
                p,
                &[
                    ("tcp", |mix| mix.tcp),
                    ("udp", |mix| mix.udp),
                    ("icmp", |mix| mix.icmp),
                    ("other", |mix| mix.other_l4),
                ],
            );
        },
    ),
    by(
        "network_packets_by_destination_total",
        "Packets since the attach, by destination address; rx is offered.",
        &["instance_id", "instance_name", "device", "netns", "direction", "destination"],
        |s, p| {
            each_kind(
                s,
                p,
                &[
                    ("unicast", |mix| mix.unicast),
                    ("multicast", |mix| mix.multicast),
                    ("broadcast", |mix| mix.broadcast),
                ],
            );
        },
    ),
    counter(
        "network_rx_gap_packets_total",
        "Packets for the guest that the programs did not see, before they were attached or while they were off: what only eBPF counts lacks them.",
        "the TAP's counters, less eBPF on the TAP",
        |s, p| each(s, p, |nic| nic.rx_gap_packets),
    ),
    counter(
        "network_tx_gap_packets_total",
        "Packets of the guest that the programs did not see; network_tx_packets_total has them, what only eBPF counts lacks them.",
        "the TAP's counters, less eBPF on the TAP",
        |s, p| each(s, p, |nic| nic.tx_gap_packets),
    ),
    Metric {
        name: "network_start_time_seconds",
        kind: Kind::Gauge,
        help: "When this VM came to have this device, in seconds of Unix time: another value, another incarnation, whose counters are its own. Absent when that was before the daemon's first look.",
        origin: "computed",
        labels: NIC,
        samples: |snapshot, push| {
            for (vm, nic) in snapshot.nics() {
                if let Some(since) = nic.start_time {
                    push(&[&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)], since, None);
                }
            }
        },
    },
    Metric {
        name: "network_source_info",
        kind: Kind::Gauge,
        help: "Always 1; which source the numbers come from, how eBPF is attached, and the inode of the network namespace if it is not the daemon's.",
        origin: "computed",
        labels: &["instance_id", "instance_name", "device", "netns", "source", "attach"],
        samples: |snapshot, push| {
            for (vm, nic) in snapshot.nics() {
                let (source, attach) = (nic.source.as_str(), nic.attach.as_str());
                push(
                    &[&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic), source, attach],
                    1.0,
                    None,
                );
            }
        },
    },
    Metric {
        name: "network_unmonitored_info",
        kind: Kind::Gauge,
        help: "Always 1; a network interface of the VM that has no numbers, for no device of the host stands for it.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "kind", "nic"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                for nic in &vm.uncounted {
                    push(&[&vm.instance_id, &vm.instance_name, nic.kind.as_str(), &nic.name], 1.0, None);
                }
            }
        },
    },
];

const fn counter(
    name: &'static str,
    help: &'static str,
    origin: &'static str,
    samples: OfSnapshot,
) -> Metric {
    Metric { name, kind: Kind::Counter, help, origin, labels: NIC, samples }
}

const fn gauge(name: &'static str, help: &'static str, samples: OfSnapshot) -> Metric {
    Metric { name, kind: Kind::Gauge, help, origin: "computed", labels: NIC, samples }
}

const fn by(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: OfSnapshot,
) -> Metric {
    Metric { name, kind: Kind::Counter, help, origin: EBPF, labels, samples }
}

pub(super) fn netns(nic: &NicStats) -> String {
    nic.netns.map(|inode| inode.to_string()).unwrap_or_default()
}

/// What the device counts.
fn each(snapshot: &Shown<'_>, push: Push<'_>, value: impl Fn(&NicStats) -> Option<u64>) {
    push_each(snapshot, push, |nic| nic.since.device, value);
}

/// What only the programs count.
fn attached(snapshot: &Shown<'_>, push: Push<'_>, value: impl Fn(&NicStats) -> Option<u64>) {
    push_each(snapshot, push, |nic| nic.since.ebpf, value);
}

fn gauges(snapshot: &Shown<'_>, push: Push<'_>, value: impl Fn(&NicStats) -> Option<u64>) {
    push_each(snapshot, push, |_| None, value);
}

fn push_each(
    snapshot: &Shown<'_>,
    push: Push<'_>,
    since: impl Fn(&NicStats) -> Since,
    value: impl Fn(&NicStats) -> Option<u64>,
) {
    for (vm, nic) in snapshot.nics() {
        if let Some(value) = value(&nic) {
            let labels = [&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)];
            push(&labels.map(String::as_str), value as f64, since(&nic));
        }
    }
}

/// One counter of a direction.
type Part = fn(&DirectionStats) -> u64;

/// Both directions, split by a last label; an empty name stands for no such label.
fn each_kind(snapshot: &Shown<'_>, push: Push<'_>, kinds: &[(&str, Part)]) {
    for (vm, nic) in snapshot.nics() {
        let Some(ebpf) = &nic.ebpf else { continue };
        let netns = netns(&nic);
        for (direction, mix) in [("rx", &ebpf.rx), ("tx", &ebpf.tx)] {
            for (kind, value) in kinds {
                let labels =
                    [vm.instance_id.as_str(), &vm.instance_name, &nic.device, &netns, direction, kind];
                let labels = if kind.is_empty() { &labels[..5] } else { &labels[..] };
                push(labels, value(mix) as f64, nic.since.ebpf);
            }
        }
    }
}
