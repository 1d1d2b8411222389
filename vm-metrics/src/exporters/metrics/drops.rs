//! Metrics of frames for a guest that were dropped, by reason.

use super::labels::{DEVICE, ID, Label, NAME, NETNS, text};
use super::nic::{DROPPED, RECEIVE, netns};
use super::{Convention, Count, Kind, Metric, SeriesGroup, Since, Sink, SnapshotView, shared};
use crate::model::{NicStats, Traffic};

const LABELS: &[Label] = &[ID, NAME, DEVICE, NETNS, text("reason", "vm.network.drop.reason")];

const DROPPED_IO: Convention =
    shared("network.dropped.io", "Bytes for the guest that were dropped since the attach, with the reason.");

pub(super) const METRICS: &[Metric] = &[PACKETS, BYTES];

const PACKETS: Metric = Metric {
    name: "network_rx_dropped_packets_total",
    group: SeriesGroup::Base,
    kind: Kind::Counter,
    unit: "{packet}",
    help: "Packets for the guest that were dropped, each with one reason. ring_full and filter (of the VMM): by the device. qdisc: by the queueing discipline or another tc program. device: by the device for an unknown reason, as before the attach.",
    origin: "the tracepoint kfree_skb; device: the TAP's counters, minus those of the tracepoint",
    labels: LABELS,
    otel: DROPPED.with(RECEIVE),
    samples: Count(|view, sink| {
        each(view, sink, |nic| {
            let [ring_full, filter, qdisc] = by_tracepoint(nic).map(|drops| Some(drops?.packets));
            [ring_full, filter, qdisc, nic.rx_dropped_by_device]
        });
    }),
};

const BYTES: Metric = Metric {
    name: "network_rx_dropped_bytes_total",
    group: SeriesGroup::Queues,
    kind: Kind::Counter,
    unit: "By",
    help: "Bytes for the guest that were dropped since the attach, by reason: ring_full, filter and qdisc, as in network_rx_dropped_packets_total.",
    origin: "the tracepoint kfree_skb",
    labels: LABELS,
    otel: DROPPED_IO.with(RECEIVE),
    samples: Count(|view, sink| {
        each(view, sink, |nic| {
            let [ring_full, filter, qdisc] = by_tracepoint(nic).map(|drops| Some(drops?.bytes));
            [ring_full, filter, qdisc, None]
        });
    }),
};

/// Drops that the tracepoint counts: at the full ring, by a filter, in the queueing discipline.
fn by_tracepoint(nic: &NicStats) -> [Option<Traffic>; 3] {
    let ebpf = nic.ebpf.unwrap_or_default();
    [ebpf.dropped_ring_full, ebpf.dropped_filter, ebpf.dropped_qdisc]
}

/// The tracepoint counts from the attach on, the device from its birth.
fn each(view: &SnapshotView<'_>, sink: Sink<'_, u64>, values: impl Fn(&NicStats) -> [Option<u64>; 4]) {
    const REASONS: [&str; 4] = ["ring_full", "filter", "qdisc", "device"];
    for (vm, nic) in view.nics() {
        let (netns, attached) = (netns(&nic), nic.since.ebpf);
        let since: [Since; 4] = [attached, attached, attached, nic.since.device];
        for ((reason, value), since) in REASONS.into_iter().zip(values(&nic)).zip(since) {
            if let Some(value) = value {
                sink(&[&vm.instance_id, &vm.instance_name, &nic.device, &netns, reason], value, since);
            }
        }
    }
}
