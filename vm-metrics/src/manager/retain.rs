//! Terminated VMs: the last numbers of VMs and interfaces that are gone are shown for a while, so that a scrape that comes
//! later still finds the last bytes.

mod settled;
mod succession;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use settled::{settled, show_nic, without_process};

use super::quota::{self, Limit, QuotaItem};
use crate::model::{
    Batch, DeviceExit, Excess, ExitNotice, InstanceInfo, Nic, NicStats, Removals, Tenant, Trust, VmSet,
    VmStats,
};

/// Terminated VMs that are kept.
const COUNT: Limit = Limit { trusted: 1 << 15, others: 4096 };

/// The bytes that these take up.
const BYTES: Limit = Limit { trusted: 256 << 20, others: 16 << 20 };

/// Terminated VMs with their last numbers.
#[derive(Debug)]
pub(super) struct TerminatedVms {
    retention: Duration,
    trust: Trust,
    /// The latest last.
    vms: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    tenant: Tenant,
    vm: VmStats,
    /// When another VM came to have its id, in seconds of Unix time.
    succeeded: Option<f64>,
}

/// Whole VMs, or VMs with only the interfaces they have lost. An interface is also lost when the VM still has it but
/// nothing can be read of it any more, or another device has its name.
pub(super) fn removals(before: &LastTick, now: &VmSet, batch: &Batch) -> Removals {
    let by_id: HashMap<_, _> = before.stats.iter().map(|stats| (stats.instance_id.as_str(), stats)).collect();
    let ifindex = |vm: &InstanceInfo, nic: &Nic| {
        let nics = &by_id.get(vm.id.as_str())?.nics;
        nics.iter().find(|stats| stats.device == nic.tap && stats.netns == nic.netns)?.ifindex
    };
    let present: HashMap<_, _> = now.vms.iter().map(|vm| (key(vm), vm)).collect();
    let deleted = deleted(batch);
    let gone = |vm: &InstanceInfo| {
        let Some(still) = present.get(&key(vm)) else { return Some(vm.clone()) };
        let lost = |nic: &&Nic| {
            let same = |was: u32| still.nics.contains(nic) && is_still_there(nic, was, batch, &deleted);
            ifindex(vm, nic).is_some_and(|was| !same(was))
        };
        let nics: Vec<_> = vm.nics.iter().filter(lost).cloned().collect();
        (!nics.is_empty()).then(|| InstanceInfo { nics, ..vm.clone() })
    };
    let vms: Vec<_> = before.vms.vms.iter().filter_map(gone).collect();
    let nics = vms.iter().flat_map(|vm| vm.nics.iter().map(move |nic| (vm, nic)));
    let ifindexes = nics.filter_map(|(vm, nic)| Some((nic.clone(), ifindex(vm, nic)?))).collect();
    Removals { vms: VmSet { vms }, ifindexes }
}

fn key(vm: &InstanceInfo) -> (&str, Option<u32>) {
    (&vm.id, vm.hypervisor_pid)
}

/// Whether something was read of the device that had this index. 0 is not known, and may be any.
fn is_still_there(nic: &Nic, was: u32, batch: &Batch, deleted: &Deleted) -> bool {
    let read = batch.taps.get(nic).map(|reading| reading.ifindex);
    let read = read.or(batch.ebpf.get(nic).map(|reading| reading.ifindex));
    read.is_some_and(|is| is == 0 || was == 0 || is == was) && !deleted.contains(&(nic.netns, was))
}

/// Devices by namespace and index.
type Deleted = HashSet<(Option<u64>, u32)>;

fn deleted(batch: &Batch) -> Deleted {
    let deleted = batch.exits.iter().filter(|device| device.exit == DeviceExit::Deleted);
    deleted.map(|ExitNotice { netns, ifindex, .. }| (*netns, *ifindex)).collect()
}

/// The last counters of a device that had been read before are those of its VM as it leaves, and not once more those of
/// whoever has its name now.
pub(super) fn withdraw_from_present(removals: &Removals, batch: &mut Batch) {
    for (nic, ifindex) in &removals.ifindexes {
        let is_it = batch.taps.get(nic).is_some_and(|reading| reading.ifindex == *ifindex);
        if is_it && batch.short_lived_nics.contains(nic) {
            batch.taps.remove(nic);
        }
    }
}

/// What was read in this tick of devices that another VM has now: they are read once, so that what one VM is given the
/// other is not.
pub(super) fn shared_readings(removals: &Removals, batch: &Batch) -> Batch {
    let mut read = Batch { namespaces: batch.namespaces.clone(), ..Batch::default() };
    // By the name alone it may be another device, and so it may be by an index that was free meanwhile.
    let deleted = deleted(batch);
    let is_it = |nic: &Nic, ifindex: u32| ifindex != 0 && !deleted.contains(&(nic.netns, ifindex));
    for (nic, ifindex) in removals.ifindexes.iter().filter(|(nic, ifindex)| is_it(nic, **ifindex)) {
        if let Some(reading) = batch.taps.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.taps.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.ebpf.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.ebpf.insert(nic.clone(), *reading);
        }
        if let Some(reading) = batch.drops.get(nic).filter(|reading| reading.ifindex == *ifindex) {
            read.drops.insert(nic.clone(), *reading);
        } else if batch.drops_awaited.contains(nic) {
            read.drops_awaited.insert(nic.clone());
        }
    }
    read
}

/// Who was there in a tick, and what was published of them.
#[derive(Debug, Default)]
pub(super) struct LastTick {
    pub(super) vms: VmSet,
    pub(super) stats: Vec<VmStats>,
}

impl TerminatedVms {
    pub(super) fn new(retention: Duration, trust: Trust) -> Self {
        Self { retention, trust, vms: Vec::new() }
    }

    /// Takes in the last words of the VMs that leave in this tick; what they leave open is as it was `before`. Says what
    /// users have had more than is kept.
    pub(super) fn add(
        &mut self,
        removals: &VmSet,
        final_stats: Vec<VmStats>,
        before: &[VmStats],
        now: Instant,
    ) -> Excess {
        self.vms.retain(|entry| now.duration_since(entry.since) < self.retention);
        let mut overuse = Excess::default();
        if final_stats.is_empty() {
            return overuse;
        }
        let before: HashMap<_, _> = before.iter().map(|vm| (vm.instance_id.as_str(), vm)).collect();
        for (info, last) in removals.vms.iter().zip(final_stats) {
            let known = before.get(last.instance_id.as_str()).copied();
            let (tenant, vm) = (Tenant::of(info, &self.trust), settled(last, known));
            self.vms.push(Entry { since: now, tenant, vm, succeeded: None });
        }
        // With no retention nothing is kept, not even for this tick's snapshot.
        self.vms.retain(|entry| now.duration_since(entry.since) < self.retention);
        self.keep(|_| 1, COUNT, &mut overuse);
        self.keep(size, BYTES, &mut overuse);
        overuse
    }

    /// Who has talked most stays longest.
    fn keep(&mut self, size: impl Fn(&VmStats) -> u64, limit: Limit, overuse: &mut Excess) {
        let kept =
            |entry: &Entry| QuotaItem { tenant: entry.tenant, size: size(&entry.vm), worth: talk(&entry.vm) };
        let gone = quota::over_quota(self.vms.iter().map(kept), limit);
        for at in &gone {
            overuse.add(self.vms[*at].tenant.uid(), "departed", 1);
        }
        quota::drop_at(&mut self.vms, &gone);
    }

    /// Puts the terminated with the present, except where something else has taken their place.
    ///
    /// A VM of another user does not take the place of a terminated one by its id alone: it is shown under another id.
    pub(super) fn show(&self, present: &mut Vec<VmStats>, vms: &VmSet) {
        if self.vms.is_empty() {
            return;
        }
        let places: HashMap<(String, Option<u32>), usize> =
            present.iter().enumerate().map(|(at, vm)| (place(vm), at)).collect();
        let holders = self.holders();
        rename_impostors(present, vms, &holders, &self.trust);
        let ids: HashSet<String> = present.iter().map(|vm| vm.instance_id.clone()).collect();
        let device = |vm: &VmStats, nic: &NicStats| Some((vm.instance_id.clone(), nic.netns, nic.ifindex?));
        // Renamed: what it counts is shown where it is now. What another VM has now is shown in part here, in part there.
        let devices: HashSet<_> =
            present.iter().flat_map(|vm| vm.nics.iter().filter_map(|nic| device(vm, nic))).collect();
        // What had the name before it has gone on in it.
        let mut gone_on = HashSet::new();
        let mut gone = |vm: &VmStats, nic: &NicStats| {
            let name = (place(vm), nic.netns, nic.device.clone());
            if device(vm, nic).is_some_and(|device| devices.contains(&device)) {
                gone_on.insert(name);
                return false;
            }
            !gone_on.contains(&name)
        };
        let processes: HashMap<u32, Option<f64>> =
            present.iter().filter_map(|vm| Some((vm.hypervisor_pid?, vm.start_time))).collect();
        // What it counts is shown under the id that it has now.
        let lives_on = |vm: &VmStats| {
            let start = vm.hypervisor_pid.and_then(|pid| processes.get(&pid));
            start.is_some_and(|start| start.zip(vm.start_time).is_none_or(|(now, before)| now == before))
        };
        let mut shown: HashMap<&str, usize> = HashMap::new();
        let mut former = HashMap::new();
        // The latest incarnation of an id is the one to show, with what it had lost before it ended.
        for Entry { tenant, vm: terminated, .. } in self.vms.iter().rev() {
            let id = terminated.instance_id.as_str();
            if holders.get(id).is_some_and(|holder| holder != tenant) {
                continue;
            }
            if !ids.contains(id) && !shown.contains_key(id) {
                shown.insert(id, present.len());
                let nics = terminated.nics.iter().filter(|nic| gone(terminated, nic)).cloned().collect();
                let terminated = VmStats { nics, ..terminated.clone() };
                present.push(if lives_on(&terminated) { without_process(terminated) } else { terminated });
                continue;
            }
            let without_process = places.get(&(id.to_owned(), None));
            let known = places.get(&place(terminated)).or(without_process).or(shown.get(id));
            let Some(vm) = known.and_then(|at| present.get_mut(*at)) else { continue };
            let pid = terminated.hypervisor_pid;
            // A VM whose process has ended may go on without one. It is the same VM, and no earlier one.
            let is_it = vm.hypervisor_pid == pid;
            let goes_on = !is_it && vm.hypervisor_pid.is_none() && *former.entry(id).or_insert(pid) == pid;
            if !is_it && !goes_on {
                continue;
            }
            if goes_on && !vm.running {
                *vm = settled(std::mem::take(vm), Some(terminated));
            }
            for nic in terminated.nics.iter().filter(|nic| gone(terminated, nic)) {
                show_nic(vm, nic);
            }
        }
    }

    /// Whose each id is: of the first that had it, or of a later one that may succeed that.
    fn holders(&self) -> HashMap<&str, Tenant> {
        let mut holders: HashMap<&str, Tenant> = HashMap::new();
        for Entry { tenant, vm, .. } in &self.vms {
            let holder = holders.entry(vm.instance_id.as_str()).or_insert(*tenant);
            if tenant.may_succeed(*holder) {
                *holder = *tenant;
            }
        }
        holders
    }
}

fn place(vm: &VmStats) -> (String, Option<u32>) {
    (vm.instance_id.clone(), vm.hypervisor_pid)
}

/// VMs that have the id of a terminated one of another user are told apart by their process.
fn rename_impostors(present: &mut [VmStats], vms: &VmSet, holders: &HashMap<&str, Tenant>, trust: &Trust) {
    let tenants = vms.vms.iter().filter(|vm| holders.contains_key(vm.id.as_str()));
    let tenants: HashMap<&str, Tenant> = tenants.map(|vm| (vm.id.as_str(), Tenant::of(vm, trust))).collect();
    for vm in present {
        let id = vm.instance_id.as_str();
        if let (Some(holder), Some(tenant)) = (holders.get(id), tenants.get(id))
            && !tenant.may_succeed(*holder)
        {
            vm.instance_id = format!("{id}-{}", vm.hypervisor_pid.unwrap_or_default());
        }
    }
}

/// In bytes, as far as a tenant can make it larger.
fn size(vm: &VmStats) -> u64 {
    let names =
        [&vm.project, &vm.namespace, &vm.pod_uid].into_iter().flatten().map(String::len).sum::<usize>();
    let text = vm.instance_id.len() + vm.instance_name.len() + names;
    let tags: usize = vm.tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    let nics: usize = vm.nics.iter().map(|nic| size_of_val(nic) + nic.device.len()).sum();
    let uncounted: usize = vm.uncounted.iter().map(|nic| size_of_val(nic) + nic.name.len()).sum();
    (size_of_val(vm) + text + tags + nics + uncounted + size_of_val(vm.vcpus.as_slice())) as u64
}

/// Bytes that it has sent and received.
fn talk(vm: &VmStats) -> u64 {
    let of_nic = |nic: &NicStats| [nic.rx.bytes, nic.tx.bytes];
    let nics = vm.nics.iter().flat_map(of_nic).flatten().fold(0, u64::saturating_add);
    let sums = [vm.net_rx_bytes, vm.net_tx_bytes].into_iter().flatten().fold(0, u64::saturating_add);
    nics.max(sums)
}

#[cfg(test)]
mod tests;
