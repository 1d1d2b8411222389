//! Keeps counters continuous, with one account per device.
//!
//! A device has two sources of counts, and one VM after the other may have it. Its cumulative counts go on over all of
//! them. Each VM is published its own share, and no other.
//!
//! The steps of a tick are in `tick`, and its I/O in `host_readings` and `state_file`. `stitched` makes one counter of
//! two sources, and `gap` counts frames that the programs did not see. `account` knows the owners of a device, `sums`
//! adds up the interfaces of a VM, and `processes` keeps start times.

mod account;
mod gap;
mod host_readings;
mod interface_counter;
mod limits;
mod moves;
mod processes;
mod series;
mod short_lived;
mod state_file;
mod stitched;
mod sums;
mod tick;
mod totals;
mod unexplained;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::SystemTime;

pub(super) use account::DeviceAccount;
pub(super) use tick::ContinuityTick;
pub(super) use totals::Totals;

use moves::Moves;
use processes::Processes;
use short_lived::ShortLivedDevices;
use state_file::Store;
use sums::Sums;

use crate::host::Host;
use crate::model::{ComponentHealth, Excess, FrameCounts, Nic, Trust, unix_seconds};
use crate::readers::Purpose;

/// Ticks between two searches for deleted devices. An account that is used again is checked anyway.
const FORGET_EVERY: u64 = 32;

/// How long an account in another namespace is kept without a VM, in seconds. Its device cannot be listed from here,
/// and in a pool of namespaces it may go to the next VM.
const KEEP_ELSEWHERE: f64 = 24.0 * 3600.0;

/// Identifies a device by its namespace and index. Its name may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DeviceKey {
    netns: Option<u64>,
    ifindex: u32,
    /// The name, where the index is not known.
    name: Option<String>,
}

/// The accounts of all devices that a VM has or had, as long as the devices live.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    host: Host,
    trust: Trust,
    tick: u64,
    /// The start of this daemon, in seconds of Unix time, and the devices of that moment.
    began: f64,
    initial_devices: Option<HashSet<u64>>,
    /// A one-shot run does not know the beginnings of devices.
    is_one_shot: bool,
    accounts: HashMap<DeviceKey, DeviceAccount>,
    /// The number of shares given to VMs.
    shares_given: u64,
    sums: Sums,
    processes: Processes,
    moves: Moves,
    short_lived: ShortLivedDevices,
    store: Option<Store>,
    /// Whether the state file is out of date.
    changed: bool,
    /// The number of forgotten items since it was last taken, by user.
    overuse: Excess,
}

/// A device and its own counts in this tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceReading<'s> {
    pub(super) nic: &'s Nic,
    /// 0 where it is not known.
    pub(super) ifindex: u32,
    /// The number that no other network namespace has or will have; `None` for this process's own.
    pub(super) namespace: Option<u64>,
    /// The device's own counts, guest perspective.
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
    /// Goes on with the state file of a daemon before this one.
    pub(super) fn new(host: Host, purpose: Purpose, state_dir: Option<&Path>, trust: Trust) -> Self {
        let is_one_shot = purpose == Purpose::Look;
        let began = unix_seconds(SystemTime::now());
        let mut store = state_dir.map(|dir| Store::new(&host, dir));
        let (accounts, ended, moves) = match &mut store {
            Some(store) if !is_one_shot => store.load(began),
            Some(store) => {
                store.look();
                Default::default()
            }
            None => Default::default(),
        };
        let (accounts, sums) = (accounts.into_iter().collect(), Sums::restored(ended, began));
        let initial_devices = host.device_ids().ok();
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

    /// Whether the device was read in the last tick under this name: then no other device can have its index.
    fn is_sure(&self, nic: &Nic, ifindex: u32) -> bool {
        let was_read = |account: &DeviceAccount| account.last_tick > 0 && account.last_tick + 1 >= self.tick;
        let account = self.accounts.get(&DeviceKey::new(nic, ifindex));
        nic.netns.is_none() && account.is_some_and(|account| was_read(account) && account.nic == *nic)
    }

    /// How the last write of the state file went; `None` where no directory was named.
    pub(super) fn state_health(&self) -> Option<&ComponentHealth> {
        self.store.as_ref().map(Store::health)
    }

    fn add_up(&mut self) {
        let shares: HashSet<u64> = self.accounts.values().map(|account| account.share).collect();
        self.sums.add_up(|share| shares.contains(&share));
    }

    /// Forgets deleted devices. A device that no VM has any more may be given to another VM later.
    fn forget_deleted(&mut self, now: f64, there: Option<&HashSet<u64>>) {
        self.processes.forget_before(self.tick);
        let tick = self.tick;
        // By number, for the name may change while a device waits for its next VM. Without a list all devices stay.
        let is_there = |device: u64| there.is_none_or(|there| there.contains(&device));
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

#[cfg(test)]
mod tests;
