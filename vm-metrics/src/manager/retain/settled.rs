//! Makes the last numbers of a terminated VM or a removed interface, without gauges.

use crate::model::{CgroupStats, NicStats, ProcessStats, VmSince, VmStats};

/// Shows a removed interface, unless a present one has its name.
pub(super) fn show_nic(vm: &mut VmStats, terminated: &NicStats) {
    let same = |nic: &&mut NicStats| name(nic) == name(terminated);
    match vm.nics.iter_mut().find(same) {
        Some(nic) if nic.ifindex.is_some() => {}
        Some(nic) => *nic = terminated.clone(),
        None => vm.nics.push(terminated.clone()),
    }
}

/// What an interface is called in its series.
pub(super) fn name(nic: &NicStats) -> (Option<u64>, &str) {
    (nic.netns, &nic.device)
}

/// Keeps only the counts of its interfaces.
pub(super) fn without_process(vm: VmStats) -> VmStats {
    VmStats {
        start_time: None,
        process: ProcessStats::default(),
        vcpus: Vec::new(),
        cgroup: None,
        since: VmSince::default(),
        ..vm
    }
}

/// The last numbers of a VM; a count that is not known is the one before.
pub(super) fn settled(mut last: VmStats, before: Option<&VmStats>) -> VmStats {
    last.running = false;
    last.state = None;
    last.process = last.process.ended(before.map(|before| before.process).unwrap_or_default());
    last.cgroup = CgroupStats::ended(last.cgroup, before.and_then(|before| before.cgroup));
    last.nics.iter_mut().for_each(end_nic);
    let Some(before) = before else { return last };
    last.start_time = last.start_time.or(before.start_time);
    last.since.process = last.since.process.or(before.since.process);
    last.since.cpu_wait = last.since.cpu_wait.or(before.since.cpu_wait);
    if last.vcpus.is_empty() {
        last.vcpus.clone_from(&before.vcpus);
    }
    last.net_rx_bytes = last.net_rx_bytes.or(before.net_rx_bytes);
    last.net_tx_bytes = last.net_tx_bytes.or(before.net_tx_bytes);
    last.net_rx_packets = last.net_rx_packets.or(before.net_rx_packets);
    last.net_tx_packets = last.net_tx_packets.or(before.net_tx_packets);
    for nic in &mut last.nics {
        let known = before.nics.iter().find(|known| name(known) == name(nic));
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
    if nic.found.is_some_and(|device| before.found.is_none_or(|before| before.id != device.id)) {
        return;
    }
    nic.found = before.found;
    nic.ifindex = before.ifindex;
    nic.source = before.source;
    nic.attach = before.attach;
    nic.start_time = before.start_time;
    nic.set_counts(nic.counts().or(&before.counts()));
    nic.earlier = nic.earlier.or(before.earlier);
    nic.since.device = nic.since.device.or(before.since.device);
    nic.since.ebpf = nic.since.ebpf.or(before.since.ebpf);
}
