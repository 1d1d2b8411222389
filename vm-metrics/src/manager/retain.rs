//! Shows the last numbers of terminated VMs for a while, for a later scrape.

mod removals;
mod settled;
mod succession;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

pub(super) use removals::{LastTick, remove};

use settled::{settled, show_nic, without_process};

use super::quota::{self, Limit, QuotaItem};
use crate::model::{Excess, NicStats, Tenant, Trust, VmSet, VmStats};

/// The number of terminated VMs that are kept.
const COUNT: Limit = Limit { trusted: 1 << 15, others: 4096 };

/// Their size in bytes.
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
    /// When another VM took over its id, in seconds of Unix time.
    succeeded: Option<f64>,
}

impl TerminatedVms {
    pub(super) fn new(retention: Duration, trust: Trust) -> Self {
        Self { retention, trust, vms: Vec::new() }
    }

    /// Takes in the final numbers of removed VMs; a number that is not known is the one `before`. Returns the number of
    /// VMs that were forgotten, by user.
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
        // Without retention no VM is kept, not even for this tick's snapshot.
        self.vms.retain(|entry| now.duration_since(entry.since) < self.retention);
        self.keep(|_| 1, COUNT, &mut overuse);
        self.keep(size, BYTES, &mut overuse);
        overuse
    }

    /// Forgets VMs beyond the limit; those with most traffic stay longest.
    fn keep(&mut self, size: impl Fn(&VmStats) -> u64, limit: Limit, overuse: &mut Excess) {
        let kept =
            |entry: &Entry| QuotaItem { tenant: entry.tenant, size: size(&entry.vm), worth: talk(&entry.vm) };
        let gone = quota::over_quota(self.vms.iter().map(kept), limit);
        for at in &gone {
            overuse.add(self.vms[*at].tenant.uid(), "departed", 1);
        }
        quota::drop_at(&mut self.vms, &gone);
    }

    /// Adds terminated VMs to the present ones, unless a present one has their place.
    ///
    /// A VM of another user does not take the place by its id alone: it is shown under another id.
    pub(super) fn show(&self, present: &mut Vec<VmStats>, vms: &VmSet) {
        if self.vms.is_empty() {
            return;
        }
        let places: HashMap<(String, Option<u32>), usize> =
            present.iter().enumerate().map(|(at, vm)| (place(vm), at)).collect();
        let holders = self.holders();
        rename_impostors(present, vms, &holders, &self.trust);
        let ids: HashSet<String> = present.iter().map(|vm| vm.instance_id.clone()).collect();
        let device = |vm: &VmStats, nic: &NicStats| Some((vm.instance_id.clone(), nic.found?.id));
        // A renamed device is shown under its present name. A device that moved to another VM is shown there and here,
        // each with its share.
        let devices: HashSet<_> =
            present.iter().flat_map(|vm| vm.nics.iter().filter_map(|nic| device(vm, nic))).collect();
        // The renamed device had this name; former devices of the name count on in it.
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
        // The process has another id now, and its counts are shown there.
        let lives_on = |vm: &VmStats| {
            let start = vm.hypervisor_pid.and_then(|pid| processes.get(&pid));
            start.is_some_and(|start| start.zip(vm.start_time).is_none_or(|(now, before)| now == before))
        };
        let mut shown: HashMap<&str, usize> = HashMap::new();
        let mut former = HashMap::new();
        // The latest VM of an id is shown, with the interfaces that it lost before it ended.
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
            // A VM may go on without its ended process. It is the same VM, and no earlier one.
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

    /// The user of each id: the first that had it, or a later one that may succeed it.
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

/// Renames VMs that have the id of another user's terminated VM: their process is added.
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

/// The size in bytes, as far as a tenant can make it larger.
fn size(vm: &VmStats) -> u64 {
    let names =
        [&vm.project, &vm.namespace, &vm.pod_uid].into_iter().flatten().map(String::len).sum::<usize>();
    let text = vm.instance_id.len() + vm.instance_name.len() + names;
    let tags: usize = vm.tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    let nics: usize = vm.nics.iter().map(|nic| size_of_val(nic) + nic.device.len()).sum();
    let unmonitored: usize = vm.unmonitored.iter().map(|nic| size_of_val(nic) + nic.name.len()).sum();
    (size_of_val(vm) + text + tags + nics + unmonitored + size_of_val(vm.vcpus.as_slice())) as u64
}

/// Sent and received bytes.
fn talk(vm: &VmStats) -> u64 {
    let of_nic = |nic: &NicStats| [nic.rx.bytes, nic.tx.bytes];
    let nics = vm.nics.iter().flat_map(of_nic).flatten().fold(0, u64::saturating_add);
    let sums = [vm.net_rx_bytes, vm.net_tx_bytes].into_iter().flatten().fold(0, u64::saturating_add);
    nics.max(sums)
}

#[cfg(test)]
mod tests;
