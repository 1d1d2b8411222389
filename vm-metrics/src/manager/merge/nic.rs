//! Merges the readings of one network interface.

use vm_metrics_common::{DropCounts, Splits};

use super::guest_view::{GuestView, counts_sent_frames, device_counts, ebpf_stats, sent_by_ebpf};
use crate::manager::continuity::{ContinuityTick, DeviceAccount, DeviceReading, Totals};
use crate::model::{
    AttachMode, EbpfReading, FrameCounts, InstanceInfo, Nic, NicKind, NicReadings, NicSince, NicSource,
    NicStats,
};

/// Makes the numbers of an interface, with the number of its share if anything was read.
pub(super) fn nic_stats(
    vm: &InstanceInfo,
    nic: &Nic,
    readings: &NicReadings,
    splits: Splits,
    tick: &mut ContinuityTick<'_>,
) -> (Option<u64>, NicStats) {
    let NicReadings { tap, ebpf, drops, awaits_drops, exit, .. } = *readings;
    let Some(device) = readings.read_device() else {
        return (None, NicStats { device: nic.tap.clone(), netns: nic.netns, ..NicStats::default() });
    };
    let (kind, ebpf) = (device.kind, ebpf.as_ref());
    let GuestView { rx, tx } = tap.map(|tap| device_counts(kind, &tap.stats)).unwrap_or_default();
    let reading = DeviceReading { nic, device, rx, tx };
    let account = tick.account(&vm.id, &reading);
    // The equation of offered frames holds for a TAP only: a macvtap does not count delivered frames.
    let is_tap = kind == NicKind::Tap;
    let has_equation = is_tap && tap.is_some();
    let drops = drops.filter(|_| is_tap);
    let cumulative = cumulative(kind, account, rx, tx, ebpf, drops);
    let (rx_backlog_packets, rx_backlog_bytes) = backlog(account, &cumulative, has_equation);
    let gap = gap(kind, account, &cumulative, tx.packets, ebpf, has_equation);
    // Before the publication, which needs the time from which the programs count.
    account.attached(ebpf.and_then(|ebpf| ebpf.since));
    let published = account.publish(cumulative);
    let is_awaited = is_tap && awaits_drops;
    let seen_drops = drops.map(device_dropped);
    let rx_dropped_by_device = account.unexplained.update(&cumulative, &published, seen_drops, is_awaited);
    let (start_time, share) = (account.since, account.share);
    let counting = ebpf.filter(|_| counts_sent_frames(kind));
    let mut stats = NicStats {
        device: nic.tap.clone(),
        netns: nic.netns,
        ifindex: Some(device.id.ifindex),
        kind,
        source: counting.map(|_| NicSource::Ebpf).or(tap.map(|tap| tap.source)).unwrap_or_default(),
        attach: ebpf.map_or(AttachMode::None, |ebpf| ebpf.attach),
        start_time,
        rx: published.rx,
        tx: published.tx,
        mismatch_bytes: counting.and_then(|_| mismatch(cumulative.tx.bytes, tx.bytes)),
        ebpf: published.ebpf.map(|ebpf| ebpf.known(splits)),
        rx_backlog_packets,
        rx_backlog_bytes,
        rx_dropped_by_device,
        rx_gap_packets: gap.rx,
        tx_gap_packets: gap.tx,
        earlier: None,
        gone: false,
        since: NicSince::default(),
        found: Some(device),
    };
    tick.continue_counter(vm, &reading, &mut stats);
    // Last, for closing removes the account.
    if let Some(exit) = exit {
        tick.close(exit, device.id, cumulative);
    }
    (Some(share), stats)
}

/// The counts of a device since its birth. Sent frames have two sources: the device and the programs.
fn cumulative(
    kind: NicKind,
    account: &mut DeviceAccount,
    rx: FrameCounts,
    tx: FrameCounts,
    ebpf: Option<&EbpfReading>,
    drops: Option<DropCounts>,
) -> Totals {
    let sent = sent_by_ebpf(kind, ebpf);
    Totals {
        rx: FrameCounts {
            bytes: account.rx_bytes.update(rx.bytes, None),
            packets: account.rx_packets.update(rx.packets, None),
            dropped: account.rx_dropped.update(rx.dropped, drops.map(device_dropped)),
            ..rx
        },
        tx: FrameCounts {
            bytes: account.tx_bytes.update(tx.bytes, sent.map(|sent| sent.bytes)),
            packets: account.tx_packets.update(tx.packets, sent.map(|sent| sent.packets)),
            ..tx
        },
        ebpf: ebpf.map(|ebpf| ebpf_stats(kind, ebpf, drops)),
    }
}

/// Packets and bytes that wait for the guest. Delivered and dropped ones were read before offered ones.
fn backlog(
    account: &mut DeviceAccount,
    cumulative: &Totals,
    has_equation: bool,
) -> (Option<u64>, Option<u64>) {
    let Some(ebpf) = cumulative.ebpf.filter(|_| has_equation) else { return (None, None) };
    let dropped = [ebpf.dropped_ring_full, ebpf.dropped_filter, ebpf.dropped_qdisc];
    let [ring_full, filter, qdisc] = dropped.map(|dropped| Some(dropped?.bytes));
    let packets = ebpf.offered.zip(finished_packets(cumulative));
    let bytes = ebpf.offered.zip(add([cumulative.rx.bytes, ring_full, filter, qdisc]));
    (
        packets.map(|(offered, finished)| account.backlog_packets.update(offered.packets, finished)),
        bytes.map(|(offered, finished)| account.backlog_bytes.update(offered.bytes, finished)),
    )
}

/// Packets that the device dropped, as the tracepoint counts them.
fn device_dropped(drops: DropCounts) -> u64 {
    drops.ring_full.packets + drops.filter.packets
}

/// Packets that were delivered or dropped. Unseen drops of the queue count as waiting.
fn finished_packets(cumulative: &Totals) -> Option<u64> {
    let qdisc = cumulative.ebpf.and_then(|ebpf| ebpf.dropped_qdisc).unwrap_or_default();
    add([cumulative.rx.packets, cumulative.rx.dropped, Some(qdisc.packets)])
}

/// Packets that the programs did not see, for the guest and from it.
fn gap(
    kind: NicKind,
    account: &mut DeviceAccount,
    cumulative: &Totals,
    tx: Option<u64>,
    ebpf: Option<&EbpfReading>,
    has_equation: bool,
) -> GuestView<Option<u64>> {
    let offered = cumulative.ebpf.and_then(|ebpf| ebpf.offered).filter(|_| has_equation);
    GuestView {
        rx: account.rx_gap.update(finished_packets(cumulative), offered.map(|offered| offered.packets)),
        tx: account.tx_gap.update(tx, sent_by_ebpf(kind, ebpf).map(|sent| sent.packets)),
    }
}

/// The sum, if all terms are known.
fn add<const N: usize>(terms: [Option<u64>; N]) -> Option<u64> {
    terms.into_iter().try_fold(0_u64, |sum, term| sum.checked_add(term?))
}

/// The device's count minus the published one: frames between the two readings, and 0 on a quiet device.
fn mismatch(published: Option<u64>, device: Option<u64>) -> Option<i64> {
    i64::try_from(i128::from(device?) - i128::from(published?)).ok()
}
