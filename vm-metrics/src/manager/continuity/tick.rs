//! The steps of one tick, in an order that types hold.
//!
//! [`Continuity::begin_tick`] returns the only value that has steps. [`ContinuityTick::end`] consumes it and returns the
//! only value that can be saved. No step does I/O or asks a clock: the host was read before the first of them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

use super::host_readings::HostReadings;
use super::processes::Process;
use super::sums::{self, Network};
use super::totals::Totals;
use super::{Continuity, DeviceAccount, DeviceKey, DeviceReading, FORGET_EVERY};
use crate::model::{
    Batch, DeviceExit, ExitNotice, FrameCounts, InstanceInfo, NicStats, Removals, Tenant, Trust, VmSet,
};

/// One tick of [`Continuity`].
#[derive(Debug)]
pub(in crate::manager) struct ContinuityTick<'c> {
    /// In seconds of Unix time.
    pub(super) now: f64,
    pub(super) host: HostReadings,
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
        present: (&VmSet, &Batch),
        removed: (&Removals, &Batch),
    ) -> ContinuityTick<'_> {
        self.tick += 1;
        let host = HostReadings::read(self, present, removed);
        let vms = identities(present, &self.trust);
        let mut tick = ContinuityTick { now, host, vms, state: self };
        // An account shows that a device was read. So the short-lived devices are assigned before accounts are closed.
        tick.assign_short_lived(present, removed);
        // Accounts are closed before the merge: there, a new device may have the index of a deleted one.
        tick.close_exited(present.1, removed.0);
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
        let key = DeviceKey::new(reading.nic, reading.ifindex);
        self.name_to_index(&key, reading);
        let vm = self.vms.get(owner).copied();
        let process = vm.and_then(|vm| vm.process);
        let is_own = key.netns.is_none();
        let is_new_there = !is_own && self.is_new(process);
        let is_sure = self.state.is_sure(reading.nic, reading.ifindex);
        let Self { state, host, now, .. } = self;
        let Continuity { accounts, moves, changed, initial_devices, shares_given, tick, is_one_shot, .. } =
            &mut **state;
        // A device of the first tick may have begun at any time before.
        let since = (!*is_one_shot && *tick > 1).then_some(*now);
        let mut new = |device: Option<u64>| {
            *changed = true;
            let mut account = DeviceAccount::new(reading.nic.clone(), device, owner, since);
            account.process = process;
            let is_old = |device| initial_devices.as_ref().is_none_or(|old| old.contains(&device));
            let is_new_here = is_own && device.is_some_and(|device| !is_old(device));
            account.counts_since.device = since.filter(|_| is_new_here || is_new_there);
            // A device that has moved goes on with its count: the owner begins at the counts published before.
            if let Some(cumulative) = moves.take(*now, reading, device) {
                account.start_from(cumulative);
                account.counts_since.device = since;
            }
            account
        };
        let account = match accounts.entry(key) {
            Entry::Vacant(free) => free.insert(new(host.identify(reading))),
            Entry::Occupied(known) => {
                let account = known.into_mut();
                let device = if is_sure { account.device } else { host.identify(reading) };
                // Another device has this index now.
                if !account.is_device(reading.nic, device) || account.decreased(reading) {
                    *account = new(device);
                }
                account
            }
        };
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
    pub(in crate::manager) fn close(
        &mut self,
        exit: DeviceExit,
        reading: &DeviceReading<'_>,
        cumulative: Totals,
    ) {
        self.forget(&DeviceKey::new(reading.nic, reading.ifindex), exit, Some(cumulative));
    }

    /// Closes the accounts of devices that left their namespace before the devices of this tick were read.
    ///
    /// Those that a VM loses in this tick stay open: the merge still publishes their final counters.
    fn close_exited(&mut self, batch: &Batch, removals: &Removals) {
        let lost: HashSet<(Option<u64>, u32)> =
            removals.ifindexes.iter().map(|(nic, ifindex)| (nic.netns, *ifindex)).collect();
        for ExitNotice { netns, ifindex, exit } in &batch.exits {
            let key = DeviceKey { netns: *netns, ifindex: *ifindex, name: None };
            let is_lost = lost.contains(&(*netns, *ifindex));
            let Some(account) = self.state.accounts.get(&key).filter(|_| !is_lost) else { continue };
            let is_back = match (netns, account.device) {
                (None, Some(device)) => self.host.device_id(&account.nic.tap) == Some(device),
                _ => matches!(exit, DeviceExit::Moved { .. }) && batch.taps.contains_key(&account.nic),
            };
            if !is_back {
                let cumulative = account.published;
                self.forget(&key, *exit, cumulative);
            }
        }
    }

    fn forget(&mut self, key: &DeviceKey, exit: DeviceExit, cumulative: Option<Totals>) {
        let Some(account) = self.state.accounts.remove(key) else { return };
        self.state.changed = true;
        if let DeviceExit::Moved { ifindex } = exit {
            self.state.moves.add(self.now, &account, cumulative, ifindex);
        }
    }

    /// Moves an account that was kept by name to its index, when a reader gives the index for the first time.
    fn name_to_index(&mut self, key: &DeviceKey, reading: &DeviceReading<'_>) {
        let Continuity { accounts, tick, .. } = &mut *self.state;
        if key.netns.is_none() || reading.ifindex == 0 || accounts.contains_key(key) {
            return;
        }
        if let Some(mut account) = accounts.remove(&DeviceKey::new(reading.nic, 0))
            && account.last_tick + 1 >= *tick
        {
            account.device = reading.namespace;
            accounts.insert(key.clone(), account);
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
        processes.started((pid, start_ticks), *tick, self.host.boot_time)
    }

    /// Ends the tick, before anything of it is published.
    pub(in crate::manager) fn end(self) -> Unsaved<'c> {
        let Self { now, host, state, .. } = self;
        if state.tick.is_multiple_of(FORGET_EVERY) {
            state.forget_deleted(now, host.all_devices.as_ref());
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
            store.save(state.accounts.iter(), state.sums.ended(), state.moves.clone());
        }
    }
}

fn identities((vms, batch): (&VmSet, &Batch), trust: &Trust) -> HashMap<String, VmIdentity> {
    let process = |vm: &InstanceInfo| {
        let pid = vm.hypervisor_pid?;
        Some((pid, batch.processes.get(&pid)?.start_ticks?))
    };
    let identity = |vm: &InstanceInfo| VmIdentity { tenant: Tenant::of(vm, trust), process: process(vm) };
    vms.vms.iter().map(|vm| (vm.id.clone(), identity(vm))).collect()
}
