//! Keeps counters continuous, with one account per device.
//!
//! A device has two sources of counts, and one VM after the other may have it. Its cumulative counts go on over all of
//! them. Each VM is published its own share, and no other.
//!
//! The steps of a tick are in `tick`, and its I/O in `state_file`. `stitched` makes one counter of
//! two sources, and `gap` counts frames that the programs did not see. `account` knows the owners of a device, `sums`
//! adds up the interfaces of a VM, and `processes` keeps start times.

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
use crate::model::{
    ComponentHealth, Device, DeviceExit, DeviceId, Excess, FrameCounts, Nic, Trust, unix_seconds,
};
use crate::net::device_table::DeviceTable;
use crate::readers::Purpose;

/// Ticks between two searches for what can be forgotten.
const FORGET_EVERY: u64 = 32;

/// How long an account in another namespace is kept without a VM, in seconds. Its device cannot be listed from here,
/// and in a pool of namespaces it may go to the next VM.
const KEEP_ELSEWHERE: f64 = 24.0 * 3600.0;

/// The accounts of all devices that a VM has or had, as long as the devices live.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    host: Host,
    trust: Trust,
    tick: u64,
    /// The start of this daemon, in seconds of Unix time.
    began: f64,
    /// A one-shot run does not know the beginnings of devices.
    is_one_shot: bool,
    accounts: HashMap<DeviceId, DeviceAccount>,
    /// Devices that have gone and that VMs lose in this tick.
    leaving: Vec<(DeviceId, DeviceExit)>,
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
    pub(super) device: Device,
    /// The device's own counts, guest perspective.
    pub(super) rx: FrameCounts,
    pub(super) tx: FrameCounts,
}

impl Continuity {
    /// Goes on with the state file of a daemon before this one.
    pub(super) fn new(
        host: Host,
        purpose: Purpose,
        state_dir: Option<&Path>,
        trust: Trust,
        devices: &mut DeviceTable,
    ) -> Self {
        let is_one_shot = purpose == Purpose::Look;
        let began = unix_seconds(SystemTime::now());
        let mut store = state_dir.map(|dir| Store::new(&host, dir));
        let (accounts, ended, moves) = match &mut store {
            Some(store) if !is_one_shot => store.load(began, devices),
            Some(store) => {
                store.look();
                Default::default()
            }
            None => Default::default(),
        };
        let (accounts, sums) = (accounts.into_iter().collect(), Sums::restored(ended, began));
        Self { host, trust, began, is_one_shot, accounts, sums, moves, store, ..Self::default() }
    }

    /// Whether a device has an account.
    pub(super) fn knows(&self, device: DeviceId) -> bool {
        self.accounts.contains_key(&device)
    }

    /// How the last write of the state file went; `None` where no directory was named.
    pub(super) fn state_health(&self) -> Option<&ComponentHealth> {
        self.store.as_ref().map(Store::health)
    }

    fn add_up(&mut self) {
        let shares: HashSet<u64> = self.accounts.values().map(|account| account.share).collect();
        self.sums.add_up(|share| shares.contains(&share));
    }

    /// Forgets what nothing has counted for long. A device of this process's namespace has its account until it goes.
    fn forget_unused(&mut self, now: f64) {
        self.processes.forget_before(self.tick);
        let known = self.accounts.len();
        let is_there =
            |account: &DeviceAccount| account.nic.netns.is_none() || now - account.last_seen < KEEP_ELSEWHERE;
        self.accounts.retain(|_, account| account.last_tick == self.tick || is_there(account));
        self.changed |= self.accounts.len() != known;
        self.sums.tidy(now);
        self.add_up();
    }
}

#[cfg(test)]
pub(super) mod tests;
