//! Continuity and identity: an account per device, so that what is published is one cumulative over two sources, and over the
//! VMs that have a device one after the other each is given its own share and no other.
//!
//! `stitched` makes one counter of two sources, `gap` says what the programs did not see, `account` knows the owners of a
//! device, `totals` takes apart what is whose, `sums` adds up what is a VM's, and `processes` knows when each VM's process
//! started.

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

/// Ticks between two looks for accounts whose device is gone; one that is taken up again is checked anyway.
const FORGET_EVERY: u64 = 32;

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
    moves: Moves,
    short_lived: ShortLivedDevices,
    store: Option<Store>,
    /// Whether something is to be written down.
    changed: bool,
    /// What was forgotten since it was last taken, for its users have left too much behind.
    overuse: Excess,
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
