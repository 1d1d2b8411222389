//! Makes the steps of a schedule on a real host.
//!
//! A *slot* is a VM and its device. The configuration lists the VMs of some slots, and the daemon discovers the others.
//! Some of these have a network namespace each, with a device of the same name in it.

mod checks;
mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use self::slot::{HERE, SLOTS, Slot};
use super::host::Host;
use super::neighbours::Neighbours;
use super::oracle::{Key, Life, Oracle};
use super::schedule::Step;
use super::traffic::{FrameKinds, LifeGuard, Nic, Writers};
use crate::user::User;
use vm_metrics_testkit::random::Random;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) oracle: Oracle,
    pub(crate) counts: Counts,
    host: Host,
    slots: Vec<Slot>,
    /// Devices that go with the last of their traffic.
    ending: Vec<Arc<Life>>,
    writers: Writers,
    kinds: FrameKinds,
    random: Random,
    /// The VMs of the slots.
    victims: BTreeSet<String>,
    /// `None` after they left.
    neighbours: Option<Neighbours>,
    _namespace: NetNs,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) begun: usize,
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) scrapes: usize,
    /// Number of attacks of each kind.
    pub(crate) acts: BTreeMap<&'static str, u64>,
}

impl World {
    /// The unit's user may not enter other namespaces, so its VMs are in the daemon's.
    pub(crate) fn slots(user: User) -> usize {
        match user {
            User::Root => SLOTS,
            User::Service => HERE,
        }
    }

    pub(crate) fn new(user: User, seed: u64, ways: Vec<&'static str>, with_neighbours: bool) -> Self {
        let namespace = NetNs::enter().unwrap();
        user.prepare_host();
        let slots: Vec<Slot> = (0..Self::slots(user)).map(Slot::new).collect();
        let listed = slots.iter().filter(|slot| !slot.found);
        let keys = slots.iter().map(|slot| (slot.key.vm.clone(), slot.key.tap.clone()));
        let neighbours = with_neighbours.then(|| Neighbours::move_in(seed.rotate_left(32), keys.collect()));
        let host = Host::new(user, ways, listed.map(|slot| (slot.key.vm.as_str(), slot.key.tap.as_str())));
        Self {
            oracle: Oracle::default(),
            counts: Counts::default(),
            host,
            victims: slots.iter().map(|slot| slot.key.vm.clone()).collect(),
            neighbours,
            slots,
            ending: Vec::new(),
            writers: Writers::start(),
            kinds: FrameKinds::new(),
            random: Random::new(!seed),
            _namespace: namespace,
        }
    }

    /// Makes the step; returns false when it does not fit.
    pub(crate) fn make(&mut self, step: Step) -> bool {
        let is_up = |slot: usize| self.slots[slot].nic.is_some();
        // A name stays in use until its final counters are published, because the series has no room for two.
        let is_free = |slot: usize| !is_up(slot) && self.oracle.is_settled(&self.slots[slot].key);
        match step {
            Step::Begin { slot, persistent } if is_free(slot) => self.begin(slot, persistent),
            Step::Traffic { slot, frames, threads } if is_up(slot) => self.traffic(slot, frames, threads),
            Step::End { slot, unseen } if is_up(slot) && (unseen || self.is_watched()) => self.end(slot),
            Step::Flash { slot, frames } if is_free(slot) && !self.slots[slot].found => {
                self.flash(slot, frames)
            }
            Step::Replace { slot } if is_up(slot) => self.replace(slot),
            Step::Restart { slot } if is_up(slot) && self.slots[slot].persistent => self.restart(slot),
            Step::Kill { patient } if self.is_watched() => self.kill(patient),
            Step::Stop if self.is_watched() => self.stop(),
            Step::Start if !self.is_watched() => self.start(),
            Step::Settle if self.is_watched() => self.settle(),
            Step::Pause { milliseconds } => thread::sleep(Duration::from_millis(milliseconds)),
            _ => return false,
        }
        self.neighbours.iter_mut().for_each(Neighbours::act);
        self.look();
        true
    }

    /// Ends everything, and returns when all of it is published.
    pub(crate) fn finish(&mut self) {
        self.make(Step::Start);
        self.settle();
        for slot in 0..self.slots.len() {
            self.make(Step::End { slot, unseen: true });
        }
        self.settle();
        self.counts.acts = self.neighbours.take().map(Neighbours::leave).unwrap_or_default();
        self.look();
        self.stop();
    }

    fn begin(&mut self, slot: usize, persistent: bool) {
        self.slots[slot].move_in(persistent);
        let key = self.slots[slot].key.clone();
        let life = LifeGuard(self.oracle.begin(&key));
        self.counts.begun += 1;
        self.hold(slot, life);
    }

    /// Starts a VM on the device, which may exist already.
    fn hold(&mut self, slot: usize, life: LifeGuard) {
        let Slot { key, found, persistent, home, .. } = &self.slots[slot];
        let options = TapOptions { persist: *persistent, ..TapOptions::default() };
        let _inside = home.elsewhere().map(|namespace| namespace.enter().unwrap());
        // A child process holds this process's closed descriptors until its exec.
        let tap = wait_until(SOON, "the name", || Ok(Tap::create_up(&key.tap, options).ok())).unwrap();
        let mut nic = Nic::new(tap, life);
        if *found {
            nic.vmm = Some(self.host.start_vmm(&key.vm, &nic.tap));
        }
        self.slots[slot].nic = Some(Arc::new(nic));
    }

    fn traffic(&mut self, slot: usize, frames: u64, threads: usize) {
        if let Some(nic) = &self.slots[slot].nic {
            self.writers.exchange(nic, frames, threads, &mut self.random);
        }
    }

    fn end(&mut self, slot: usize) {
        self.wait_until_found(slot);
        if let (Some(neighbours), true) = (&mut self.neighbours, self.slots[slot].found) {
            let Key { vm, tap, .. } = &self.slots[slot].key;
            neighbours.swarm(vm, tap);
        }
        if let Some(nic) = self.slots[slot].nic.take() {
            self.ending.push(Arc::clone(&nic.life.0));
            drop(nic);
            self.slots[slot].home.leave();
        }
        if !self.is_watched() {
            self.wait_for_ends();
            self.oracle.excuse();
        }
    }

    fn flash(&mut self, slot: usize, frames: u64) {
        self.begin(slot, false);
        if let Some(nic) = self.slots[slot].nic.take() {
            nic.exchange(frames, &mut self.random, &self.kinds);
        }
    }

    fn replace(&mut self, slot: usize) {
        let nic = self.take_idle(slot);
        drop(nic);
        let key = self.slots[slot].key.clone();
        self.oracle.excuse_last(&key);
        let persistent = self.slots[slot].persistent;
        self.begin(slot, persistent);
    }

    fn restart(&mut self, slot: usize) {
        let life = self.take_idle(slot).abandon();
        self.hold(slot, life);
    }

    fn kill(&mut self, patient: bool) {
        self.wait_for_ends();
        if patient {
            self.wait_for_final_counters();
        }
        self.host.daemon.take().unwrap().kill().unwrap();
        self.counts.kills += 1;
        self.oracle.excuse();
    }

    fn stop(&mut self) {
        self.wait_for_ends();
        self.wait_for_final_counters();
        let status = self.host.daemon.take().unwrap().terminate().unwrap();
        assert_eq!(status.code(), Some(0));
        self.counts.stops += 1;
    }

    fn start(&mut self) {
        self.wait_for_ends();
        self.oracle.excuse();
        self.host.start(&mut self.random);
        if let (Some(neighbours), Some(daemon)) = (&mut self.neighbours, &self.host.daemon) {
            neighbours.call(daemon.address());
        }
    }

    fn settle(&mut self) {
        self.wait_for_ends();
        self.wait_for_final_counters();
        for slot in 0..self.slots.len() {
            self.wait_until_idle(slot);
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].nic.is_some() {
                let key = self.slots[slot].key.clone();
                self.wait("exactly the written traffic", Some(&key), |oracle, _| oracle.is_exact(&key));
            }
        }
    }
}
