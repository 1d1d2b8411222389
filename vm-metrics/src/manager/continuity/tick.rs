//! The steps of one tick, in an order that types hold.
//!
//! [`Continuity::begin_tick`] returns the only value that has steps. [`ContinuityTick::end`] consumes it and returns the
//! only value that can be saved. No step does I/O or asks a clock: the host was read before the first of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

use super::processes::Process;
use super::sums::{self, Network};
use super::totals::Totals;
use super::{Continuity, DeviceAccount, DeviceReading, FORGET_EVERY};
use crate::model::{Batch, DeviceExit, DeviceId, FrameCounts, InstanceInfo, NicStats, Tenant, Trust, VmSet};

/// One tick of [`Continuity`].
#[derive(Debug)]
pub(in crate::manager) struct ContinuityTick<'c> {
    /// In seconds of Unix time.
    pub(super) now: f64,
    /// In seconds of Unix time; read in a tick with a new process or thread.
    boot_time: Option<u64>,
    /// The VMs of this tick, by id.
    vms: HashMap<String, VmIdentity>,
    pub(super) state: &'c mut Continuity,
}

/// The user and the process of a VM.
#[derive(Clone, Copy, Debug)]
struct VmIdentity {
    tenant: Tenant,
    process: Option<Process>,
}

/// A tick that has ended, and whose changes are not in the state file yet.
#[derive(Debug)]
#[must_use = "a restart would give bytes twice"]
pub(in crate::manager) struct Unsaved<'c>(&'c mut Continuity);

impl Continuity {
    /// Begins a tick at `now`, in seconds of Unix time.
    pub(in crate::manager) fn begin_tick(
        &mut self,
        now: f64,
        present: &VmSet,
        removals: &VmSet,
        batch: &Batch,
    ) -> ContinuityTick<'_> {
        self.tick += 1;
        let boot_time = self.processes.has_new(batch).then(|| self.host.boot_time()).flatten();
        let vms = identities(present, batch, &self.trust);
        let mut tick = ContinuityTick { now, boot_time, vms, state: self };
        // An account shows that a device was read. So the short-lived devices are assigned before accounts are closed.
        tick.assign_short_lived(present, removals, batch);
        // Accounts are closed before the merge, so that a device that has moved goes on in its next account.
        tick.close_exited(batch);
        tick
    }
}

impl<'c> ContinuityTick<'c> {
    /// Returns the account of a device, and makes `owner` its owner.
    pub(in crate::manager) fn account(
        &mut self,
        owner: &str,
        reading: &DeviceReading<'_>,
    ) -> &mut DeviceAccount {
        let vm = self.vms.get(owner).copied();
        let process = vm.and_then(|vm| vm.process);
        let is_new_there = reading.nic.netns.is_some() && self.is_new(process);
        let Self { state, now, .. } = self;
        let Continuity { accounts, moves, changed, shares_given, tick, is_one_shot, .. } = &mut **state;
        // A device of the first tick may have begun at any time before.
        let since = (!*is_one_shot && *tick > 1).then_some(*now);
        let mut new = || {
            *changed = true;
            let mut account = DeviceAccount::new(reading.nic.clone(), reading.device, owner, since);
            account.process = process;
            account.counts_since.device = since.filter(|_| reading.device.is_young || is_new_there);
            // A device that has moved goes on with its count: the owner begins at the counts published before.
            if let Some(cumulative) = moves.take(*now, reading) {
                account.start_from(cumulative);
                account.counts_since.device = since;
            }
            account
        };
        let account = match accounts.entry(reading.device.id) {
            Entry::Vacant(free) => free.insert(new()),
            Entry::Occupied(known) => {
                let account = known.into_mut();
                if account.decreased(reading) {
                    *account = new();
                }
                account
            }
        };
        account.device = reading.device;
        if account.nic != *reading.nic {
            account.rename(reading.nic, *now);
            *changed = true;
        }
        if account.owner != owner {
            account.hand_to(owner, process, since);
            *changed = true;
        } else if process.is_some() && account.process != process {
            account.process = process;
            *changed = true;
        }
        // A new owner has a new share.
        if account.share == 0 {
            *shares_given += 1;
            account.share = *shares_given;
        }
        account.tenant = vm.map_or(account.tenant, |vm| vm.tenant);
        account.note(*tick, *now, reading);
        account
    }

    /// Closes the account of a device that left its namespace, after all of it is published.
    pub(in crate::manager) fn close(&mut self, exit: DeviceExit, device: DeviceId, cumulative: Totals) {
        self.forget(device, exit, Some(cumulative));
    }

    /// Closes the accounts of devices that left their namespace before the devices of this tick were read.
    ///
    /// Those whose final counters stand for an interface stay open: the merge still publishes them.
    fn close_exited(&mut self, batch: &Batch) {
        let read: HashSet<DeviceId> = batch.nics.iter().filter_map(|nic| Some(nic.device?.id)).collect();
        let (leaving, gone) = batch.exits.iter().partition(|(device, _)| read.contains(device));
        self.state.leaving = leaving;
        self.forget_all(gone);
    }

    fn forget_all(&mut self, gone: Vec<(DeviceId, DeviceExit)>) {
        for (device, exit) in gone {
            let cumulative = self.state.accounts.get(&device).and_then(|account| account.published);
            self.forget(device, exit, cumulative);
        }
    }

    fn forget(&mut self, device: DeviceId, exit: DeviceExit, cumulative: Option<Totals>) {
        let Some(account) = self.state.accounts.remove(&device) else { return };
        self.state.changed = true;
        if let DeviceExit::Moved { ifindex } = exit {
            self.state.moves.add(self.now, &account, cumulative, ifindex);
        }
    }

    /// Adds up all interfaces of a VM since its process started: present, removed, and `short_lived` ones.
    ///
    /// A sum is `None` where the count of one present interface is not known.
    pub(in crate::manager) fn network_sum(
        &mut self,
        vm: &InstanceInfo,
        start_ticks: Option<u64>,
        nics: &[(Option<u64>, NicStats)],
        short_lived: &[(FrameCounts, FrameCounts)],
    ) -> Network {
        let short_lived: Vec<Network> = short_lived.iter().map(|(rx, tx)| sums::network(rx, tx)).collect();
        let tenant = Tenant::of(vm, &self.state.trust);
        self.state.sums.sum((vm, tenant), start_ticks, self.now, nics, &short_lived)
    }

    /// Returns the start of a process, in seconds of Unix time: the same number for as long as it lives.
    pub(in crate::manager) fn start_time(&mut self, pid: u32, start_ticks: u64) -> Option<f64> {
        let Continuity { processes, tick, .. } = &mut *self.state;
        processes.started((pid, start_ticks), *tick, self.boot_time)
    }

    /// Ends the tick, before anything of it is published.
    pub(in crate::manager) fn end(mut self) -> Unsaved<'c> {
        let leaving = mem::take(&mut self.state.leaving);
        self.forget_all(leaving);
        let Self { now, state, .. } = self;
        if state.tick.is_multiple_of(FORGET_EVERY) {
            state.forget_unused(now);
        }
        state.keep_within_limits(now);
        if state.changed {
            state.add_up();
        }
        Unsaved(state)
    }
}

impl Unsaved<'_> {
    /// Writes the state file, if something has changed.
    pub(in crate::manager) fn save(self) {
        let state = self.0;
        if mem::take(&mut state.changed)
            && let Some(store) = state.store.as_mut().filter(|_| !state.is_one_shot)
        {
            store.save(state.accounts.values(), state.sums.ended(), state.moves.clone());
        }
    }
}

fn identities(vms: &VmSet, batch: &Batch, trust: &Trust) -> HashMap<String, VmIdentity> {
    let process = |vm: &InstanceInfo| {
        let pid = vm.hypervisor_pid?;
        Some((pid, batch.processes.get(&pid)?.start_ticks?))
    };
    let identity = |vm: &InstanceInfo| VmIdentity { tenant: Tenant::of(vm, trust), process: process(vm) };
    vms.vms.iter().map(|vm| (vm.id.clone(), identity(vm))).collect()
}
