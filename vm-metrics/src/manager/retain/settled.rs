//! Makes the last numbers of a terminated VM or a removed interface, without gauges.

use crate::model::{CgroupStats, EbpfStats, NicStats, VmSince, VmStats};

/// Shows a removed interface, unless a present one has its name.
pub(super) fn show_nic(vm: &mut VmStats, terminated: &NicStats) {
    let same = |nic: &&mut NicStats| nic.device == terminated.device && nic.netns == terminated.netns;
    match vm.nics.iter_mut().find(same) {
        Some(nic) if nic.ifindex.is_some() => {}
        Some(nic) => *nic = terminated.clone(),
        None => vm.nics.push(terminated.clone()),
    }
}

/// Keeps only the counts of its interfaces.
pub(super) fn without_process(vm: VmStats) -> VmStats {
    VmStats {
        start_time: None,
        cpu_usec: None,
        cpu_wait_usec: None,
        context_switches: None,
        minor_page_faults: None,
        major_page_faults: None,
        vcpus: Vec::new(),
        disk_read_bytes: None,
        disk_write_bytes: None,
        disk_cancelled_write_bytes: None,
        cgroup: None,
        since: VmSince::default(),
        ..vm
    }
}

/// The last numbers of a VM; a count that is not known is the one before.
pub(super) fn settled(mut last: VmStats, before: Option<&VmStats>) -> VmStats {
    last.running = false;
    last.state = None;
    for number in last.in_use_mut() {
        *number = None;
    }
    last.cgroup = CgroupStats::ended(last.cgroup, before.and_then(|before| before.cgroup));
    last.nics.iter_mut().for_each(end_nic);
    let Some(before) = before else { return last };
    last.start_time = last.start_time.or(before.start_time);
    last.since.process = last.since.process.or(before.since.process);
    last.since.cpu_wait = last.since.cpu_wait.or(before.since.cpu_wait);
    last.cpu_usec = last.cpu_usec.or(before.cpu_usec);
    last.cpu_wait_usec = last.cpu_wait_usec.or(before.cpu_wait_usec);
    last.context_switches = last.context_switches.or(before.context_switches);
    last.minor_page_faults = last.minor_page_faults.or(before.minor_page_faults);
    last.major_page_faults = last.major_page_faults.or(before.major_page_faults);
    if last.vcpus.is_empty() {
        last.vcpus.clone_from(&before.vcpus);
    }
    last.disk_read_bytes = last.disk_read_bytes.or(before.disk_read_bytes);
    last.disk_write_bytes = last.disk_write_bytes.or(before.disk_write_bytes);
    last.disk_cancelled_write_bytes = last.disk_cancelled_write_bytes.or(before.disk_cancelled_write_bytes);
    last.net_rx_bytes = last.net_rx_bytes.or(before.net_rx_bytes);
    last.net_tx_bytes = last.net_tx_bytes.or(before.net_tx_bytes);
    last.net_rx_packets = last.net_rx_packets.or(before.net_rx_packets);
    last.net_tx_packets = last.net_tx_packets.or(before.net_tx_packets);
    for nic in &mut last.nics {
        let known = before.nics.iter().find(|known| known.device == nic.device && known.netns == nic.netns);
        if let Some(known) = known {
            settle_nic(nic, known);
        }
    }
    last
}

/// Ends the gauges of an interface.
fn end_nic(nic: &mut NicStats) {
    nic.gone = true;
    (nic.rx_backlog_packets, nic.rx_backlog_bytes, nic.mismatch_bytes) = (None, None, None);
}

fn settle_nic(nic: &mut NicStats, before: &NicStats) {
    let same_device = nic.ifindex.is_none() || nic.ifindex == before.ifindex;
    if !same_device {
        return;
    }
    nic.ifindex = before.ifindex;
    nic.source = before.source;
    nic.attach = before.attach;
    nic.start_time = before.start_time;
    nic.rx = nic.rx.zip_with(before.rx, Option::or);
    nic.tx = nic.tx.zip_with(before.tx, Option::or);
    nic.ebpf = EbpfStats::or(nic.ebpf, before.ebpf);
    nic.rx_dropped_by_device = nic.rx_dropped_by_device.or(before.rx_dropped_by_device);
    nic.rx_gap_packets = nic.rx_gap_packets.or(before.rx_gap_packets);
    nic.tx_gap_packets = nic.tx_gap_packets.or(before.tx_gap_packets);
    nic.earlier = nic.earlier.or(before.earlier);
    nic.since.device = nic.since.device.or(before.since.device);
    nic.since.ebpf = nic.since.ebpf.or(before.since.ebpf);
}
