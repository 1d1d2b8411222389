//! Adds up all interfaces of a VM, present and removed. A sum of the present ones would fall when one is removed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::interface_counter::InterfaceCounter;
use crate::manager::quota::{self, Limit, QuotaItem};
use crate::model::{Excess, FrameCounts, InstanceInfo, Nic, NicStats, Tenant};

/// Removed interfaces of a VM that may be made anew.
const MAX_LOST: usize = 64;

/// How long an unlisted VM may come back with the same process, in seconds.
const KEEP: f64 = 3600.0;

/// Bytes received and sent, packets received and sent, guest perspective.
pub(in crate::manager) type Network = [Option<u64>; 4];

/// A VM by its id and process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::manager) struct VmKey {
    id: String,
    pid: Option<u32>,
}

impl VmKey {
    pub(in crate::manager) fn of(vm: &InstanceInfo) -> Self {
        Self { id: vm.id.clone(), pid: vm.hypervisor_pid }
    }
}

/// The sum of the ended shares of one VM, which the next daemon cannot read.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct VmSum {
    id: String,
    pid: u32,
    start_ticks: u64,
    sum: Network,
}

/// By VM.
#[derive(Debug, Default)]
pub(super) struct Sums {
    vms: HashMap<VmKey, Vm>,
}

#[derive(Debug, Default)]
struct Vm {
    start_ticks: Option<u64>,
    /// In seconds of Unix time.
    last_seen: f64,
    /// The user of the VM; `None` for a VM of a daemon before this one.
    tenant: Option<Tenant>,
    /// The last published counts of each share, by the number of the share.
    shares: HashMap<u64, Network>,
    /// The sum of ended shares.
    ended: Network,
    /// The counters of its interfaces.
    counters: HashMap<Nic, InterfaceCounter>,
    /// The name in its series.
    name: Option<String>,
    has_other_series: bool,
}

impl Sums {
    pub(super) fn restored(ended: Vec<VmSum>, now: f64) -> Self {
        let vm = |VmSum { id, pid, start_ticks, sum }| {
            let start_ticks = Some(start_ticks);
            (VmKey { id, pid: Some(pid) }, Vm { start_ticks, last_seen: now, ended: sum, ..Vm::default() })
        };
        Self { vms: ended.into_iter().map(vm).collect() }
    }

    /// The sums to save: of VMs with a known process.
    pub(super) fn ended(&self) -> Vec<VmSum> {
        let ended = |(VmKey { id, pid }, vm): (&VmKey, &Vm)| {
            let (id, pid, start_ticks, sum) = (id.clone(), (*pid)?, vm.start_ticks?, vm.ended);
            sum.iter().any(Option::is_some).then_some(VmSum { id, pid, start_ticks, sum })
        };
        self.vms.iter().filter_map(ended).collect()
    }

    /// Takes up a VM. Another process with its id and pid is another VM.
    pub(super) fn enter(
        &mut self,
        (vm, tenant): (&InstanceInfo, Tenant),
        start_ticks: Option<u64>,
        now: f64,
    ) {
        let known = self.vms.entry(VmKey::of(vm)).or_default();
        if known.start_ticks.zip(start_ticks).is_some_and(|(before, now)| before != now) {
            *known = Vm::default();
        }
        known.start_ticks = start_ticks.or(known.start_ticks);
        (known.last_seen, known.tenant) = (now, Some(tenant));
        let name = known.name.get_or_insert_with(|| vm.name.clone());
        known.has_other_series |= *name != vm.name;
    }

    /// Whether the VM had another name, so that its counters are also in other series.
    pub(super) fn has_other_series(&self, vm: &InstanceInfo) -> bool {
        self.vms.get(&VmKey::of(vm)).is_some_and(|vm| vm.has_other_series)
    }

    /// The counter of an interface of this VM.
    pub(super) fn counter(&mut self, vm: &InstanceInfo, nic: &Nic, tick: u64) -> &mut InterfaceCounter {
        let counters = &mut self.vms.entry(VmKey::of(vm)).or_default().counters;
        if !counters.contains_key(nic) && counters.len() >= MAX_LOST {
            forget_oldest(counters, tick);
        }
        let counter = counters.entry(nic.clone()).or_default();
        counter.last_tick = tick;
        counter
    }

    /// The sum of all interfaces; `None` where the count of one of `nics` is not known. Each comes with the number of
    /// its share. `short_lived` are the counts of devices between two ticks.
    pub(super) fn sum(
        &mut self,
        (vm, tenant): (&InstanceInfo, Tenant),
        start_ticks: Option<u64>,
        now: f64,
        nics: &[(Option<u64>, NicStats)],
        short_lived: &[Network],
    ) -> Network {
        self.enter((vm, tenant), start_ticks, now);
        let known = self.vms.entry(VmKey::of(vm)).or_default();
        known.ended = short_lived.iter().fold(known.ended, |ended, device| each(ended, *device, add));
        for (share, nic) in nics {
            if let Some(share) = share {
                let last = known.shares.entry(*share).or_default();
                *last = each(counts(nic), *last, Option::or);
            }
        }
        let sum = known.shares.values().fold(known.ended, |sum, share| each(sum, *share, add));
        nics.iter()
            .fold(sum, |sum, (_, nic)| each(sum, counts(nic), |sum, count| sum.filter(|_| count.is_some())))
    }

    /// Forgets terminated VMs.
    pub(super) fn tidy(&mut self, now: f64) {
        self.vms.retain(|_, vm| now - vm.last_seen < KEEP);
    }

    /// Forgets terminated VMs of a user who has too many; those with most traffic stay longest.
    pub(super) fn keep(&mut self, limit: Limit, now: f64, overuse: &mut Excess) {
        if self.vms.len() as u64 <= limit.others {
            return;
        }
        let is_gone = |(_, vm): &(&VmKey, &Vm)| vm.last_seen < now;
        let left: Vec<_> =
            self.vms.iter().filter(is_gone).map(|(key, vm)| (key.clone(), vm.kept())).collect();
        for at in quota::over_quota(left.iter().map(|(_, kept)| *kept), limit) {
            let (key, kept) = &left[at];
            overuse.add(kept.tenant.uid(), "sums of departed", 1);
            self.vms.remove(key);
        }
    }

    /// Adds the ended shares to one sum.
    pub(super) fn add_up(&mut self, goes_on: impl Fn(u64) -> bool) {
        for vm in self.vms.values_mut() {
            let ended = &mut vm.ended;
            vm.shares.retain(|number, share| {
                let keep = goes_on(*number);
                if !keep {
                    *ended = each(*ended, *share, add);
                }
                keep
            });
        }
    }
}

impl Vm {
    fn kept(&self) -> QuotaItem {
        let bytes = |[rx, tx, ..]: &Network| rx.unwrap_or(0).saturating_add(tx.unwrap_or(0));
        let worth = self.shares.values().map(bytes).fold(bytes(&self.ended), u64::saturating_add);
        QuotaItem { tenant: self.tenant.unwrap_or(Tenant::Other(None)), size: 1, worth }
    }
}

/// Makes room for one more, if too many are lost. A present one stays: its counter would fall.
fn forget_oldest(counters: &mut HashMap<Nic, InterfaceCounter>, tick: u64) {
    let lost = || counters.iter().filter(|(_, counter)| counter.last_tick + 1 < tick);
    if lost().count() < MAX_LOST {
        return;
    }
    let oldest = lost().min_by_key(|(_, counter)| counter.last_tick).map(|(nic, _)| nic.clone());
    oldest.map(|nic| counters.remove(&nic));
}

fn counts(nic: &NicStats) -> Network {
    network(&nic.rx, &nic.tx)
}

/// Guest perspective.
pub(super) fn network(rx: &FrameCounts, tx: &FrameCounts) -> Network {
    [rx.bytes, tx.bytes, rx.packets, tx.packets]
}

fn each(a: Network, b: Network, of: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Network {
    std::array::from_fn(|at| of(a[at], b[at]))
}

/// An unknown count of an ended share stays unknown.
fn add(sum: Option<u64>, share: Option<u64>) -> Option<u64> {
    sum.zip(share).map(|(sum, share)| sum.saturating_add(share)).or(sum).or(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_shares_are_one_number() {
        let mut sums = Sums::default();
        let vm = InstanceInfo::default();
        let sum = |sums: &mut Sums, share, bytes| {
            let tx = FrameCounts { bytes: Some(bytes), ..FrameCounts::default() };
            sums.sum(
                (&vm, Tenant::Trusted),
                None,
                0.0,
                &[(Some(share), NicStats { tx, ..NicStats::default() })],
                &[],
            )[1]
        };
        assert_eq!(sum(&mut sums, 1, 5), Some(5));
        assert_eq!(sum(&mut sums, 2, 7), Some(12));
        sums.add_up(|share| share == 2);
        sums.tidy(KEEP / 2.0);
        assert_eq!(sums.vms.values().map(|vm| vm.shares.len()).sum::<usize>(), 1);
        assert_eq!(sum(&mut sums, 2, 8), Some(13));
        sums.tidy(KEEP);
        assert!(sums.vms.is_empty());
    }

    #[test]
    fn the_latest_lost_interfaces_are_kept() {
        let (mut sums, vm) = (Sums::default(), InstanceInfo::default());
        let (stays, lost) = (Nic::local("stays"), |tick: u64| Nic::local(format!("t{tick}")));
        for tick in 1..=3 * MAX_LOST as u64 {
            sums.counter(&vm, &stays, tick);
            sums.counter(&vm, &lost(tick), tick);
        }
        let counters = &sums.vms[&VmKey::of(&vm)].counters;
        assert!(counters.len() <= MAX_LOST + 3, "{}", counters.len());
        assert!(counters.contains_key(&stays) && counters.contains_key(&lost(3 * MAX_LOST as u64 - 1)));
    }

    #[test]
    fn short_lived_devices_stay_in_the_sum() {
        let mut sums = Sums::default();
        let vm = InstanceInfo::default();
        let short_lived = [[Some(1), Some(10), Some(1), Some(1)], [Some(2), Some(20), Some(1), Some(1)]];
        assert_eq!(
            sums.sum((&vm, Tenant::Trusted), None, 0.0, &[], &short_lived),
            [Some(3), Some(30), Some(2), Some(2)]
        );
        assert_eq!(sums.sum((&vm, Tenant::Trusted), None, 0.0, &[], &[])[1], Some(30));
    }

    #[test]
    fn a_stranger_displaces_no_other_sums() {
        let mut sums = Sums::default();
        let mut sum = |uid: u32, pid: u32, bytes, now| {
            let vm = InstanceInfo { id: "a".into(), hypervisor_pid: Some(pid), ..InstanceInfo::default() };
            let counted = [Some(bytes); 4];
            sums.sum((&vm, Tenant::Other(Some(uid))), None, now, &[], &[counted]);
        };
        sum(1, 1, 5, 1.0);
        (2..20).for_each(|pid| sum(7, pid, pid.into(), 2.0));
        let (mut overuse, mut expected) = (Excess::default(), Excess::default());
        sums.keep(Limit { trusted: 0, others: 10 }, 3.0, &mut overuse);
        expected.add(Some(7), "sums of departed", 9);
        assert_eq!((overuse, sums.vms.len()), (expected, 10));
        assert!(sums.vms.keys().any(|key| key.pid == Some(1)));
        assert!(sums.vms.keys().any(|key| key.pid == Some(19)), "the largest stays");
    }
}
