//! Metrics of how far the numbers of a network interface can be trusted.

use super::labels::{DEVICE, ID, NAME, NETNS, NIC, text};
use super::nic::{RECEIVE, TRANSMIT, counter, each, netns};
use super::{Convention, Count, Kind, Metric, Real, SeriesGroup, otel, shared};

const GAP_ORIGIN: &str = "the TAP's counters, less eBPF on the TAP";

const GAP: Convention = shared("network.gap.packet.count", "Packets that the eBPF programs did not see.");

pub(super) const METRICS: &[Metric] = &[
    counter(
        "network_rx_gap_packets_total",
        "{packet}",
        "Packets for the guest that the programs did not see, before they were attached or while they were off; counters of eBPF alone lack them.",
        GAP_ORIGIN,
        GAP.with(RECEIVE),
        Count(|view, sink| each(view, sink, |nic| nic.rx_gap_packets)),
    ),
    counter(
        "network_tx_gap_packets_total",
        "{packet}",
        "Packets of the guest that the programs did not see; network_tx_packets_total includes them; counters of eBPF alone do not.",
        GAP_ORIGIN,
        GAP.with(TRANSMIT),
        Count(|view, sink| each(view, sink, |nic| nic.tx_gap_packets)),
    ),
    Metric {
        name: "network_start_time_seconds",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "s",
        help: "The moment from which this VM has this device, in seconds of Unix time. Another value is another incarnation with its own counters. Absent if that was before the daemon's first tick.",
        origin: "computed",
        labels: NIC,
        otel: otel("network.start_time"),
        samples: Real(|view, sink| {
            for (vm, nic) in view.nics() {
                if let Some(since) = nic.start_time {
                    sink(&[&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic)], since, None);
                }
            }
        }),
    },
    Metric {
        name: "network_source_info",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Always 1; the source of the numbers, the attach method of eBPF, and the inode of a foreign network namespace.",
        origin: "computed",
        labels: &[
            ID,
            NAME,
            DEVICE,
            NETNS,
            text("source", "vm.network.source"),
            text("attach", "vm.network.attach"),
        ],
        otel: otel("network.source.info"),
        samples: Count(|view, sink| {
            for (vm, nic) in view.nics() {
                let (source, attach) = (nic.source.as_str(), nic.attach.as_str());
                sink(
                    &[&vm.instance_id, &vm.instance_name, &nic.device, &netns(&nic), source, attach],
                    1,
                    None,
                );
            }
        }),
    },
    Metric {
        name: "network_unmonitored_info",
        group: SeriesGroup::Base,
        kind: Kind::Gauge,
        unit: "",
        help: "Always 1; a network interface of the VM without a device on the host, and so without numbers.",
        origin: "sources",
        labels: &[ID, NAME, text("kind", "vm.network.kind"), text("nic", "vm.network.nic")],
        otel: otel("network.unmonitored.info"),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                for nic in &vm.unmonitored {
                    sink(&[&vm.instance_id, &vm.instance_name, nic.kind.as_str(), &nic.name], 1, None);
                }
            }
        }),
    },
];
