//! A host with VMs whose devices come and go, and a daemon that does too; each step is made on the real thing.
//!
//! A *slot* is a VM and its device. Of some the configuration tells; the others are processes, to be found. Some of those
//! have a network namespace each, with a device of the same name in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vm_metrics_testkit::netns::{Elsewhere, NetNs};
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::books::{Books, Key, Life};
use super::chance::Chance;
use super::host::Host;
use super::neighbours::Neighbours;
use super::schedule::Step;
use super::shown::Shown;
use super::traffic::{Alive, Kinds, Nic, Writers};
use crate::user::User;

const LISTED: usize = 14;
const FOUND: usize = 6;
/// Where the daemon is.
const HERE: usize = LISTED + FOUND;
/// In a namespace that stays when the VM ends, as of a pool.
const POOLED: usize = 2;
/// In a namespace that comes and goes with the VM.
const JAILED: usize = 2;
const SLOTS: usize = HERE + POOLED + JAILED;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) books: Books,
    pub(crate) counts: Counts,
    host: Host,
    slots: Vec<Slot>,
    /// Devices that go as soon as the traffic on them ends.
    ending: Vec<Arc<Life>>,
    writers: Writers,
    kinds: Kinds,
    chance: Chance,
    /// The VMs of the slots.
    victims: BTreeSet<String>,
    /// Until they leave.
    neighbours: Option<Neighbours>,
    _namespace: NetNs,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) begun: usize,
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) scrapes: usize,
    /// What the neighbours have done.
    pub(crate) acts: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Slot {
    /// Of the latest device.
    key: Key,
    home: Home,
    found: bool,
    persistent: bool,
    nic: Option<Arc<Nic>>,
}

/// Where the device is.
#[derive(Debug)]
enum Home {
    /// Where the daemon is.
    Here,
    Pooled(Elsewhere),
    Jailed(Option<Elsewhere>),
}

impl World {
    /// The unit's user may not enter other namespaces, so its VMs are all in the daemon's.
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
            books: Books::default(),
            counts: Counts::default(),
            host,
            victims: slots.iter().map(|slot| slot.key.vm.clone()).collect(),
            neighbours,
            slots,
            ending: Vec::new(),
            writers: Writers::start(),
            kinds: Kinds::new(),
            chance: Chance::new(!seed),
            _namespace: namespace,
        }
    }

    /// False when the step does not fit.
    pub(crate) fn make(&mut self, step: Step) -> bool {
        let is_up = |slot: usize| self.slots[slot].nic.is_some();
        // Until its last words are heard a name is not used again: the series has no room for two.
        let is_free = |slot: usize| !is_up(slot) && self.books.is_settled(&self.slots[slot].key);
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

    /// Ends everything, and leaves when all of it has been shown.
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
        let life = Alive(self.books.begin(&key));
        self.counts.begun += 1;
        self.hold(slot, life);
    }

    /// Somebody takes the device, which may be there already.
    fn hold(&mut self, slot: usize, life: Alive) {
        let Slot { key, found, persistent, home, .. } = &self.slots[slot];
        let options = TapOptions { persist: *persistent, ..TapOptions::default() };
        let _inside = home.elsewhere().map(|namespace| namespace.enter().unwrap());
        // A child that is about to become another program still has what was closed here.
        let tap = wait_until(SOON, "the name", || Ok(Tap::create_up(&key.tap, options).ok())).unwrap();
        let mut nic = Nic::new(tap, life);
        if *found {
            nic.vmm = Some(self.host.start_vmm(&key.vm, &nic.tap));
        }
        self.slots[slot].nic = Some(Arc::new(nic));
    }

    fn traffic(&mut self, slot: usize, frames: u64, threads: usize) {
        if let Some(nic) = &self.slots[slot].nic {
            self.writers.exchange(nic, frames, threads, &mut self.chance);
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
            self.books.excuse();
        }
    }

    fn flash(&mut self, slot: usize, frames: u64) {
        self.begin(slot, false);
        if let Some(nic) = self.slots[slot].nic.take() {
            nic.exchange(frames, &mut self.chance, &self.kinds);
        }
    }

    fn replace(&mut self, slot: usize) {
        let nic = self.take_idle(slot);
        drop(nic);
        let key = self.slots[slot].key.clone();
        self.books.excuse_last(&key);
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
            self.wait_for_last_words();
        }
        self.host.daemon.take().unwrap().kill().unwrap();
        self.counts.kills += 1;
        self.books.excuse();
    }

    fn stop(&mut self) {
        self.wait_for_ends();
        self.wait_for_last_words();
        let status = self.host.daemon.take().unwrap().terminate().unwrap();
        assert_eq!(status.code(), Some(0));
        self.counts.stops += 1;
    }

    fn start(&mut self) {
        self.wait_for_ends();
        self.books.excuse();
        self.host.start(&mut self.chance);
        if let (Some(neighbours), Some(daemon)) = (&mut self.neighbours, &self.host.daemon) {
            neighbours.call(daemon.address());
        }
    }

    fn settle(&mut self) {
        self.wait_for_ends();
        self.wait_for_last_words();
        for slot in 0..self.slots.len() {
            self.wait_until_idle(slot);
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].nic.is_some() {
                let key = self.slots[slot].key.clone();
                self.wait("exactly what was written", Some(&key), |books, _| books.is_exact(&key));
            }
        }
    }

    fn is_watched(&self) -> bool {
        self.host.daemon.is_some()
    }

    /// Checks what the daemon shows now.
    fn look(&mut self) -> Shown {
        let Some(daemon) = &self.host.daemon else { return Shown::default() };
        let shown = Shown::by(daemon).unwrap();
        self.counts.scrapes += 1;
        let namespaces =
            self.slots.iter().filter_map(|slot| Some(slot.home.elsewhere()?.inode().to_string()));
        let is_here = |netns: &str| namespaces.clone().any(|inode| inode == netns);
        let checked = shown.of_victims(&self.victims, &self.host.vmms, is_here);
        let checked = checked.and_then(|nics| self.books.check(&nics));
        checked.unwrap_or_else(|problem| panic!("{problem}\n{}", self.host.everything()));
        shown
    }

    fn wait(&mut self, what: &str, key: Option<&Key>, is_so: impl Fn(&Books, &Shown) -> bool) {
        let waited = wait_until(SOON, what, || {
            let shown = self.look();
            Ok(is_so(&self.books, &shown).then_some(()))
        });
        if let Err(error) = waited {
            let about = key.map(|key| self.books.describe(key)).unwrap_or_default();
            panic!("{error}: {about}\n{}", self.host.all_of(key));
        }
    }

    /// A VM that nobody has told of must live until it is found.
    fn wait_until_found(&mut self, slot: usize) {
        let pid = self.slots[slot].nic.as_ref().and_then(|nic| Some(nic.vmm.as_ref()?.pid()));
        if let (Some(pid), true) = (pid, self.is_watched()) {
            let key = self.slots[slot].key.clone();
            self.wait("the VM to be found", Some(&key), |_, shown| shown.pids.get(&key.vm) == Some(&pid));
        }
    }

    fn wait_for_last_words(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].nic.is_none() {
                let key = self.slots[slot].key.clone();
                self.wait("last words", Some(&key), |books, _| books.is_settled(&key));
            }
        }
    }

    fn wait_for_ends(&mut self) {
        let ending = std::mem::take(&mut self.ending);
        let over = || Ok(ending.iter().all(|life| life.has_ended()).then_some(()));
        wait_until(SOON, "the end of the traffic on devices that go", over).unwrap();
    }

    fn wait_until_idle(&self, slot: usize) {
        if let Some(nic) = &self.slots[slot].nic {
            let idle = || Ok((Arc::strong_count(nic) == 1).then_some(()));
            wait_until(SOON, "the end of the traffic", idle).unwrap();
        }
    }

    fn take_idle(&mut self, slot: usize) -> Nic {
        self.wait_until_idle(slot);
        Arc::into_inner(self.slots[slot].nic.take().unwrap()).expect("nobody else uses it")
    }
}

impl Slot {
    fn new(index: usize) -> Self {
        const LAST: usize = HERE + POOLED;
        let (vm, home) = match index {
            0..LISTED => ("listed", Home::Here),
            LISTED..HERE => ("found", Home::Here),
            HERE..LAST => ("pooled", Home::Pooled(Elsewhere::new().unwrap())),
            _ => ("jailed", Home::Jailed(None)),
        };
        // Elsewhere the name is that of the first slot, which is here.
        let tap = format!("vmc{}", if index < HERE { index } else { 0 });
        let key = Key { vm: format!("{vm}-{index}"), tap, netns: String::new() };
        Self { key, home, found: index >= LISTED, persistent: false, nic: None }
    }

    /// A VM begins.
    fn move_in(&mut self, persistent: bool) {
        self.persistent = persistent;
        if let Home::Jailed(namespace) = &mut self.home {
            *namespace = Some(Elsewhere::new().unwrap());
        }
        if let Some(namespace) = self.home.elsewhere() {
            self.key.netns = namespace.inode().to_string();
        }
    }
}

impl Home {
    fn elsewhere(&self) -> Option<&Elsewhere> {
        match self {
            Self::Here => None,
            Self::Pooled(namespace) => Some(namespace),
            Self::Jailed(namespace) => namespace.as_ref(),
        }
    }

    /// A VM ends.
    fn leave(&mut self) {
        if let Self::Jailed(namespace) = self {
            *namespace = None;
        }
    }
}
