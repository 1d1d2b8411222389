//! Continuity and identity: an account per device, so that what is published is one cumulative over two sources, and over the
//! VMs that have a device one after the other each is given its own share and no other.
//!
//! `stitched` makes one counter of two sources, `gap` says what the programs did not see, `account` knows the owners of a
//! device, `totals` takes apart what is whose, `sums` adds up what is a VM's, and `processes` knows when each VM's process
//! started.

mod account;
mod gap;
mod interface_counter;
mod limits;
mod moves;
mod processes;
mod series;
mod short_lived;
mod state_file;
mod stitched;
mod sums;
mod totals;
mod unexplained;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::Path;
use std::time::SystemTime;

pub(super) use account::DeviceAccount;
pub(super) use totals::Totals;

use moves::Moves;
use processes::{Process, Processes};
use short_lived::ShortLivedDevices;
use state_file::Store;
use sums::{Network, Sums};

use crate::host::Host;
use crate::model::{
    Batch, ComponentHealth, DeviceExit, Excess, ExitNotice, FrameCounts, InstanceInfo, Nic, NicStats,
    Removals, Tenant, Trust, VmSet,
};
use crate::readers::Purpose;

/// Ticks between two looks for accounts whose device is gone; one that is taken up again is checked anyway.
const TIDY: u64 = 32;

/// Whether a device in another namespace lives on without a VM cannot be asked from here; in a pool of namespaces it may,
/// and the next VM must not be given what it counted for the last one. In seconds.
const KEEP_ELSEWHERE: f64 = 24.0 * 3600.0;

/// A device by its namespace and index. Its name may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DeviceKey {
    netns: Option<u64>,
    ifindex: u32,
    /// Where the index is not known.
    name: Option<String>,
}

/// The accounts of all devices that a VM has or had, as long as they live.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    host: Host,
    trust: Trust,
    tick: u64,
    /// Of this tick, in seconds of Unix time.
    now: f64,
    /// When this daemon began to look, in seconds of Unix time, and the devices that were there.
    began: f64,
    initial_devices: Option<HashSet<u64>>,
    /// Who looks only once does not know since when things are as they are.
    is_one_shot: bool,
    accounts: HashMap<DeviceKey, DeviceAccount>,
    /// How many shares of devices were given to VMs.
    shares_given: u64,
    sums: Sums,
    processes: Processes,
    /// The VMs of this tick, by id.
    known: HashMap<String, VmIdentity>,
    moves: Moves,
    remade: ShortLivedDevices,
    store: Option<Store>,
    /// Whether something is to be written down.
    changed: bool,
    /// What was forgotten since it was last taken, for its users have left too much behind.
    overuse: Excess,
}

/// Whose VM it is, and which process.
#[derive(Clone, Copy, Debug)]
struct VmIdentity {
    tenant: Tenant,
    process: Option<Process>,
}

/// A device as it was read in this tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceReading<'s> {
    pub(super) nic: &'s Nic,
    /// 0 where it is not known.
    pub(super) ifindex: u32,
    /// What tells the network namespace from others that had or will have its inode; `None` for this process's own.
    pub(super) namespace: Option<u64>,
    /// What the device itself counts, guest perspective.
    pub(super) rx: FrameCounts,
    pub(super) tx: FrameCounts,
}

impl DeviceKey {
    fn new(nic: &Nic, ifindex: u32) -> Self {
        let name = (ifindex == 0).then(|| nic.tap.clone());
        Self { netns: nic.netns, ifindex, name }
    }
}

impl Continuity {
    /// Goes on with what a daemon before this one has left in the directory.
    pub(super) fn new(host: Host, purpose: Purpose, state_dir: Option<&Path>, trust: Trust) -> Self {
        let is_one_shot = purpose == Purpose::Look;
        let mut store = state_dir.map(|dir| Store::new(&host, dir));
        let (accounts, ended, moves) = match &mut store {
            Some(store) if !is_one_shot => store.load(now()),
            Some(store) => {
                store.look();
                Default::default()
            }
            None => Default::default(),
        };
        let (accounts, sums) = (accounts.into_iter().collect(), Sums::restored(ended, now()));
        let initial_devices = host.device_ids().ok();
        let began = now();
        Self {
            host,
            trust,
            began,
            initial_devices,
            is_one_shot,
            accounts,
            sums,
            moves,
            store,
            ..Self::default()
        }
    }

    pub(super) fn begin_tick(&mut self) {
        self.tick += 1;
        self.now = now();
    }

    /// The account of a device, which from now on is this owner's.
    pub(super) fn account(&mut self, owner: &str, reading: &DeviceReading<'_>) -> &mut DeviceAccount {
        let key = DeviceKey::new(reading.nic, reading.ifindex);
        self.name_to_index(&key, reading);
        let known = self.known.get(owner).copied();
        let process = known.and_then(|known| known.process);
        let is_new_there = reading.nic.netns.is_some() && self.is_new(process);
        let identify = || match reading.nic.netns {
            None => self.host.device_id(&reading.nic.tap),
            Some(_) => reading.namespace,
        };
        let is_own = key.netns.is_none();
        // What is there at the first look has begun before.
        let since = (!self.is_one_shot && self.tick > 1).then_some(self.now);
        let Self { moves, changed, initial_devices, .. } = self;
        let mut new = |device: Option<u64>| {
            *changed = true;
            let mut account = DeviceAccount::new(reading.nic.clone(), device, owner, since);
            account.process = process;
            let is_old = |device| initial_devices.as_ref().is_none_or(|old| old.contains(&device));
            let is_new_here = is_own && device.is_some_and(|device| !is_old(device));
            account.counts_since.device = since.filter(|_| is_new_here || is_new_there);
            if let Some(cumulative) = moves.take(self.now, reading, device) {
                account.start_from(cumulative);
                account.counts_since.device = since;
            }
            account
        };
        let account = match self.accounts.entry(key) {
            Entry::Vacant(free) => free.insert(new(identify())),
            Entry::Occupied(known) => {
                let account = known.into_mut();
                // Asked only where there may be another one: the kernel hardly ever uses an index again.
                let was_there = account.last_tick > 0 && account.last_tick + 1 >= self.tick;
                let sure = is_own && was_there && account.nic == *reading.nic;
                let device = if sure { account.device } else { identify() };
                if !account.is_device(reading.nic, device) || account.decreased(reading) {
                    *account = new(device);
                }
                account
            }
        };
        if account.nic != *reading.nic {
            account.rename(reading.nic, self.now);
            self.changed = true;
        }
        if account.owner != owner {
            account.hand_to(owner, process, since);
            self.changed = true;
        } else if process.is_some() && account.process != process {
            account.process = process;
            self.changed = true;
        }
        if account.share == 0 {
            self.shares_given += 1;
            account.share = self.shares_given;
        }
        account.tenant = known.map_or(account.tenant, |known| known.tenant);
        account.note(self.tick, self.now, reading);
        account
    }

    /// The device is not where it was, and all of it is published: another one there begins anew.
    pub(super) fn close(&mut self, exit: DeviceExit, reading: &DeviceReading<'_>, cumulative: Totals) {
        self.forget(&DeviceKey::new(reading.nic, reading.ifindex), exit, Some(cumulative));
    }

    /// Which processes the VMs of this tick are. To be called before it is merged.
    pub(super) fn set_vms(&mut self, vms: &VmSet, batch: &Batch) {
        let process = |vm: &InstanceInfo| {
            let pid = vm.hypervisor_pid?;
            Some((pid, batch.processes.get(&pid)?.start_ticks?))
        };
        let trust = &self.trust;
        let known = |vm: &InstanceInfo| {
            (vm.id.clone(), VmIdentity { tenant: Tenant::of(vm, trust), process: process(vm) })
        };
        self.known = vms.vms.iter().map(known).collect();
    }

    /// Forgets the devices that had gone before those of this tick were read: what has such an index now is another one.
    /// To be called before the tick is merged, where those that leave a VM say their last words.
    pub(super) fn close_exited(&mut self, batch: &Batch, removals: &Removals) {
        // The tick begins later, and before the first one there is no time yet.
        self.now = now();
        let leave: HashSet<(Option<u64>, u32)> =
            removals.ifindexes.iter().map(|(nic, ifindex)| (nic.netns, *ifindex)).collect();
        for ExitNotice { netns, ifindex, exit } in &batch.exits {
            let key = DeviceKey { netns: *netns, ifindex: *ifindex, name: None };
            let leaves_a_vm = leave.contains(&(*netns, *ifindex));
            let Some(account) = self.accounts.get(&key).filter(|_| !leaves_a_vm) else { continue };
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
        let Some(account) = self.accounts.remove(key) else { return };
        self.changed = true;
        if let DeviceExit::Moved { ifindex } = exit {
            self.moves.add(self.now, &account, cumulative, ifindex);
        }
    }

    /// What was read by name only is from now on read by index as well.
    fn name_to_index(&mut self, key: &DeviceKey, reading: &DeviceReading<'_>) {
        if key.netns.is_none() || reading.ifindex == 0 || self.accounts.contains_key(key) {
            return;
        }
        if let Some(mut account) = self.accounts.remove(&DeviceKey::new(reading.nic, 0))
            && account.last_tick + 1 >= self.tick
        {
            account.device = reading.namespace;
            self.accounts.insert(key.clone(), account);
        }
    }

    /// What all interfaces of this VM have counted together since its process started, also those that it has no more, and
    /// the `remade` that no tick has seen; nothing where it is not known of one of these.
    pub(super) fn network_sum(
        &mut self,
        vm: &InstanceInfo,
        start_ticks: Option<u64>,
        nics: &[(Option<u64>, NicStats)],
        remade: &[(FrameCounts, FrameCounts)],
    ) -> Network {
        let remade: Vec<Network> = remade.iter().map(|(rx, tx)| sums::network(rx, tx)).collect();
        let tenant = Tenant::of(vm, &self.trust);
        self.sums.sum((vm, tenant), start_ticks, self.now, nics, &remade)
    }

    /// When a process started, in seconds of Unix time: the same number for as long as it lives.
    pub(super) fn start_time(&mut self, pid: u32, start_ticks: u64) -> Option<f64> {
        self.processes.started((pid, start_ticks), self.tick, &self.host)
    }

    /// To be called before anything of this tick is published.
    pub(super) fn end_tick(&mut self) {
        if self.tick.is_multiple_of(TIDY) {
            self.forget_deleted();
        }
        self.keep_within_limits();
        if mem::take(&mut self.changed) {
            self.add_up();
            let Some(store) = self.store.as_mut().filter(|_| !self.is_one_shot) else { return };
            store.save(self.accounts.iter(), self.sums.ended(), self.moves.clone());
        }
    }

    /// How writing the state for the next daemon goes; `None` where no directory was named.
    pub(super) fn state_health(&self) -> Option<&ComponentHealth> {
        self.store.as_ref().map(Store::health)
    }

    fn add_up(&mut self) {
        let shares: HashSet<u64> = self.accounts.values().map(|account| account.share).collect();
        self.sums.add_up(|share| shares.contains(&share));
    }

    /// Forgets the devices that are gone. One that no VM has any more may be given to another VM later.
    fn forget_deleted(&mut self) {
        self.processes.forget_before(self.tick);
        let (tick, now) = (self.tick, self.now);
        // Not by name, which may change while a device waits for its next VM. One that cannot be asked for stays.
        let there = self.host.device_ids().ok();
        let is_there = |device: u64| there.as_ref().is_none_or(|there| there.contains(&device));
        let known = self.accounts.len();
        self.accounts.retain(|key, account| {
            let lives = || match key.netns {
                None => account.device.is_some_and(is_there),
                Some(_) => now - account.last_seen < KEEP_ELSEWHERE,
            };
            account.last_tick == tick || lives()
        });
        self.changed |= self.accounts.len() != known;
        self.sums.tidy(now);
        self.add_up();
    }
}

/// In seconds of Unix time.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

#[cfg(test)]
mod tests;
