//! The departed: the last numbers of VMs and interfaces that are gone are shown for a while, so that a scrape that comes
//! later still finds the last bytes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::ledger::ebpf_or;
use crate::model::{Batch, FrameCounts, InstanceInfo, Leaving, Nic, NicStats, VmSet, VmStats};

/// Departed VMs with their last numbers.
#[derive(Debug)]
pub(super) struct Departed {
    retention: Duration,
    vms: Vec<(Instant, VmStats)>,
}

/// Whole VMs, or VMs with only the interfaces they have lost. An interface is also lost when the VM still has it but
/// nothing can be read of it any more.
pub(super) fn leaving(before: &Tick, now: &VmSet, batch: &Batch) -> Leaving {
    let gone = |vm: &InstanceInfo| {
        let same = |other: &&InstanceInfo| other.id == vm.id && other.hypervisor_pid == vm.hypervisor_pid;
        let Some(still) = now.vms.iter().find(same) else { return Some(vm.clone()) };
        let was_read = |nic: &Nic| before.ifindex(vm, nic).is_some();
        let is_read = |nic: &Nic| batch.taps.contains_key(nic) || batch.ebpf.contains_key(nic);
        let lost = |nic: &&Nic| was_read(nic) && !(still.nics.contains(nic) && is_read(nic));
        let nics: Vec<_> = vm.nics.iter().filter(lost).cloned().collect();
        (!nics.is_empty()).then(|| InstanceInfo { nics, ..vm.clone() })
    };
    let vms: Vec<_> = before.vms.vms.iter().filter_map(gone).collect();
    let nics = vms.iter().flat_map(|vm| vm.nics.iter().map(move |nic| (vm, nic)));
    let ifindexes = nics.filter_map(|(vm, nic)| Some((nic.clone(), before.ifindex(vm, nic)?))).collect();
    Leaving { vms: VmSet { vms }, ifindexes }
}

/// What was read in this tick of devices that another VM has now: they are read once, so that what one VM is given the
/// other is not.
pub(super) fn handed_over(leaving: &Leaving, batch: &Batch) -> Batch {
    let mut read = Batch { namespaces: batch.namespaces.clone(), ..Batch::default() };
    // By the name alone it may be another device.
    for (nic, ifindex) in leaving.ifindexes.iter().filter(|(_, ifindex)| **ifindex != 0) {
        if let Some(reading) = batch.taps.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.taps.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.ebpf.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.ebpf.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.drops.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.drops.insert(nic.clone(), *reading);
        }
    }
    read
}

/// Who was there in a tick, and what was published of them.
#[derive(Debug, Default)]
pub(super) struct Tick {
    pub(super) vms: VmSet,
    pub(super) stats: Vec<VmStats>,
}

impl Tick {
    fn ifindex(&self, vm: &InstanceInfo, nic: &Nic) -> Option<u32> {
        let stats = self.stats.iter().find(|stats| stats.instance_id == vm.id)?;
        stats.nics.iter().find(|stats| stats.device == nic.tap && stats.netns == nic.netns)?.ifindex
    }
}

impl Departed {
    pub(super) fn new(retention: Duration) -> Self {
        Self { retention, vms: Vec::new() }
    }

    /// Takes in the last words of this tick; what they leave open is as it was `before`.
    pub(super) fn add(&mut self, last_words: Vec<VmStats>, before: &[VmStats], now: Instant) {
        for last in last_words {
            let known = before.iter().find(|vm| vm.instance_id == last.instance_id);
            self.vms.push((now, settled(last, known)));
        }
        self.vms.retain(|(since, _)| now.duration_since(*since) < self.retention);
    }

    /// Puts the departed with the present, except where something else has taken their place.
    pub(super) fn show(&self, present: &mut Vec<VmStats>) {
        let ids: HashSet<String> = present.iter().map(|vm| vm.instance_id.clone()).collect();
        let device = |vm: &VmStats, nic: &NicStats| Some((vm.instance_id.clone(), nic.netns, nic.ifindex?));
        // Renamed: what it counts is shown where it is now. What another VM has now is shown in part here, in part there.
        let devices: HashSet<_> =
            present.iter().flat_map(|vm| vm.nics.iter().filter_map(|nic| device(vm, nic))).collect();
        let gone =
            |vm: &VmStats, nic: &NicStats| device(vm, nic).is_none_or(|device| !devices.contains(&device));
        let processes: HashMap<u32, Option<f64>> =
            present.iter().filter_map(|vm| Some((vm.hypervisor_pid?, vm.start_time))).collect();
        // What it counts is shown under the id that it has now.
        let lives_on = |vm: &VmStats| {
            let start = vm.hypervisor_pid.and_then(|pid| processes.get(&pid));
            start.is_some_and(|start| start.zip(vm.start_time).is_none_or(|(now, before)| now == before))
        };
        let mut shown = HashSet::new();
        // The latest incarnation of an id is the one to show, with what it had lost before it ended.
        for (_, departed) in self.vms.iter().rev() {
            let is_there = ids.contains(&departed.instance_id);
            if !is_there && shown.insert(&departed.instance_id) {
                let nics = departed.nics.iter().filter(|nic| gone(departed, nic)).cloned().collect();
                let departed = VmStats { nics, ..departed.clone() };
                present.push(if lives_on(&departed) { without_process(departed) } else { departed });
                continue;
            }
            let same = |vm: &&mut VmStats| {
                vm.instance_id == departed.instance_id && vm.hypervisor_pid == departed.hypervisor_pid
            };
            if let Some(vm) = present.iter_mut().find(same) {
                for nic in departed.nics.iter().filter(|nic| gone(departed, nic)) {
                    show_nic(vm, nic);
                }
            }
        }
    }
}

/// In the place of one of which nothing is known; not beside one that is there.
fn show_nic(vm: &mut VmStats, departed: &NicStats) {
    let same = |nic: &&mut NicStats| nic.device == departed.device && nic.netns == departed.netns;
    match vm.nics.iter_mut().find(same) {
        Some(nic) if nic.ifindex.is_some() => {}
        Some(nic) => *nic = departed.clone(),
        None => vm.nics.push(departed.clone()),
    }
}

/// Only what its interfaces have counted.
fn without_process(vm: VmStats) -> VmStats {
    VmStats {
        start_time: None,
        cpu_usec: None,
        cpu_wait_usec: None,
        vcpus: Vec::new(),
        disk_read_bytes: None,
        disk_write_bytes: None,
        disk_cancelled_write_bytes: None,
        ..vm
    }
}

/// The last numbers of a VM that uses nothing any more.
fn settled(mut last: VmStats, before: Option<&VmStats>) -> VmStats {
    last.running = false;
    last.state = None;
    for memory in last.memory_mut() {
        *memory = None;
    }
    let Some(before) = before else { return last };
    last.start_time = last.start_time.or(before.start_time);
    last.cpu_usec = last.cpu_usec.or(before.cpu_usec);
    last.cpu_wait_usec = last.cpu_wait_usec.or(before.cpu_wait_usec);
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

fn settle_nic(nic: &mut NicStats, before: &NicStats) {
    let same_device = nic.ifindex.is_none() || nic.ifindex == before.ifindex;
    if !same_device {
        return;
    }
    nic.ifindex = before.ifindex;
    nic.source = before.source;
    nic.attach = before.attach;
    nic.start_time = before.start_time;
    nic.rx = or(nic.rx, before.rx);
    nic.tx = or(nic.tx, before.tx);
    nic.ebpf = ebpf_or(nic.ebpf, before.ebpf);
    nic.rx_gap_packets = nic.rx_gap_packets.or(before.rx_gap_packets);
    nic.tx_gap_packets = nic.tx_gap_packets.or(before.tx_gap_packets);
}

fn or(last: FrameCounts, before: FrameCounts) -> FrameCounts {
    FrameCounts {
        bytes: last.bytes.or(before.bytes),
        packets: last.packets.or(before.packets),
        dropped: last.dropped.or(before.dropped),
        errors: last.errors.or(before.errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TapReading, VcpuStats, VmState};

    fn info(id: &str, pid: u32, taps: &[&str]) -> InstanceInfo {
        let nics = taps.iter().map(|tap| Nic::local(*tap)).collect();
        InstanceInfo { id: id.into(), hypervisor_pid: Some(pid), nics, ..InstanceInfo::default() }
    }

    fn stats(id: &str, pid: u32, tap: &str, tx_bytes: Option<u64>) -> VmStats {
        let tx = FrameCounts { bytes: tx_bytes, ..FrameCounts::default() };
        let nic = NicStats { device: tap.into(), ifindex: Some(3), tx, ..NicStats::default() };
        VmStats {
            instance_id: id.into(),
            hypervisor_pid: Some(pid),
            running: true,
            memory_rss_bytes: Some(5),
            state: Some(VmState::Running),
            nics: vec![nic],
            ..VmStats::default()
        }
    }

    #[test]
    fn leaving_are_vms_and_interfaces_that_were_there() {
        let before =
            VmSet { vms: vec![info("a", 1, &["t0", "t1"]), info("b", 2, &["t2"]), info("c", 3, &[])] };
        let before = Tick { vms: before, stats: vec![stats("a", 1, "t0", Some(1))] };
        let now = VmSet { vms: vec![info("a", 1, &["t1"]), info("c", 4, &[])] };
        let leaving = leaving(&before, &now, &Batch::default());
        assert_eq!(leaving.vms.vms, [info("a", 1, &["t0"]), info("b", 2, &["t2"]), info("c", 3, &[])]);
    }

    #[test]
    fn an_interface_that_can_no_longer_be_read_is_lost() {
        let vms = VmSet { vms: vec![info("a", 1, &["t0"])] };
        let before = Tick { vms: vms.clone(), stats: vec![stats("a", 1, "t0", Some(1))] };
        assert_eq!(leaving(&before, &vms, &Batch::default()).vms, vms);
        let mut read = Batch::default();
        read.taps.insert(Nic::local("t0"), TapReading::default());
        assert_eq!(leaving(&before, &vms, &read), Leaving::default());
        let never = Tick { vms: vms.clone(), stats: Vec::new() };
        assert_eq!(leaving(&never, &vms, &Batch::default()), Leaving::default());
    }

    #[test]
    fn last_numbers_are_shown_for_the_time_of_retention_and_no_longer() {
        let start = Instant::now();
        let mut departed = Departed::new(Duration::from_secs(10));
        let before = VmStats { net_tx_bytes: Some(9), ..stats("a", 1, "t0", Some(7)) };
        departed.add(vec![stats("a", 1, "t0", None)], &[before], start);
        let mut present = Vec::new();
        departed.show(&mut present);
        let shown = (present[0].nics[0].tx.bytes, present[0].net_tx_bytes);
        assert_eq!(shown, (Some(7), Some(9)), "as it was before");
        let vm = &present[0];
        assert_eq!((vm.running, vm.memory_rss_bytes, vm.state), (false, None, None));
        departed.add(Vec::new(), &[], start + Duration::from_secs(11));
        let mut present = Vec::new();
        departed.show(&mut present);
        assert_eq!(present, []);
    }

    #[test]
    fn last_words_win_over_what_was_before() {
        let mut departed = Departed::new(Duration::from_secs(10));
        let before = [stats("a", 1, "t0", Some(7))];
        departed.add(vec![stats("a", 1, "t0", Some(9))], &before, Instant::now());
        let mut present = Vec::new();
        departed.show(&mut present);
        assert_eq!(present[0].nics[0].tx.bytes, Some(9));
    }

    #[test]
    fn a_device_that_has_only_another_name_is_not_shown_twice() {
        let mut departed = Departed::new(Duration::from_secs(10));
        departed.add(vec![stats("a", 1, "old", Some(7))], &[], Instant::now());
        let mut present = vec![stats("a", 1, "new", Some(8))];
        departed.show(&mut present);
        assert_eq!(present[0].nics.len(), 1);
        let mut present = vec![stats("b", 2, "old", Some(8))];
        departed.show(&mut present);
        assert_eq!(present[1].nics[0].tx.bytes, Some(7), "another VM has it now: this was its part");
    }

    #[test]
    fn what_a_process_counts_is_shown_under_one_id() {
        let process = |id, start_time, cpu_usec| VmStats {
            start_time,
            cpu_usec: Some(cpu_usec),
            disk_read_bytes: Some(1),
            vcpus: vec![VcpuStats::default()],
            ..stats(id, 1, "t0", Some(7))
        };
        let mut departed = Departed::new(Duration::from_secs(10));
        departed.add(vec![process("a", Some(5.0), 30)], &[], Instant::now());
        let shown = |now: VmStats| {
            let mut present = vec![now];
            departed.show(&mut present);
            let a = present.remove(1);
            (a.cpu_usec, a.disk_read_bytes, a.vcpus.len(), a.start_time, a.nics[0].tx.bytes)
        };
        assert_eq!(
            shown(process("b", Some(5.0), 31)),
            (None, None, 0, None, Some(7)),
            "it has another id now"
        );
        assert_eq!(
            shown(process("b", None, 31)),
            (None, None, 0, None, Some(7)),
            "and no reason to think otherwise"
        );
        let another = (Some(30), Some(1), 1, Some(5.0), Some(7));
        assert_eq!(shown(process("b", Some(6.0), 2)), another, "the pid is used again");
    }

    #[test]
    fn an_interface_that_goes_before_its_vm_is_shown_with_it() {
        let mut departed = Departed::new(Duration::from_secs(10));
        departed.add(vec![stats("a", 1, "t0", Some(7))], &[], Instant::now());
        let bare = VmStats { nics: Vec::new(), ..stats("a", 1, "t0", None) };
        departed.add(vec![bare], &[], Instant::now());
        let mut present = Vec::new();
        departed.show(&mut present);
        assert_eq!(present.len(), 1);
        assert_eq!(present[0].nics[0].tx.bytes, Some(7));
    }

    #[test]
    fn who_takes_the_place_is_shown_instead() {
        let mut departed = Departed::new(Duration::from_secs(10));
        let mut lost_nic = stats("b", 5, "t1", Some(3));
        lost_nic.nics[0].device = "t9".into();
        lost_nic.nics[0].ifindex = Some(9);
        departed.add(vec![stats("a", 1, "t0", Some(7)), lost_nic], &[], Instant::now());
        let mut present = vec![stats("a", 2, "t0", Some(1)), stats("b", 5, "t1", Some(4))];
        departed.show(&mut present);
        assert_eq!(present.len(), 2);
        assert_eq!(present[0].nics.len(), 1, "another process: nothing of the old one");
        let of_b: Vec<_> = present[1].nics.iter().map(|nic| nic.device.as_str()).collect();
        assert_eq!(of_b, ["t1", "t9"]);
    }
}
