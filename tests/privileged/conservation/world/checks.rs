//! Waits for the daemon, and checks each scrape against the oracle.

use std::sync::Arc;

use vm_metrics_testkit::wait::{SOON, wait_until};

use super::super::oracle::{Key, Oracle};
use super::super::published::PublishedUse;
use super::super::traffic::Nic;
use super::World;

impl World {
    pub(super) fn is_watched(&self) -> bool {
        self.host.daemon.is_some()
    }

    /// Scrapes the daemon and checks the values.
    pub(super) fn look(&mut self) -> PublishedUse {
        let Some(daemon) = &self.host.daemon else { return PublishedUse::default() };
        let shown = PublishedUse::by(daemon).unwrap();
        self.counts.scrapes += 1;
        let namespaces =
            self.slots.iter().filter_map(|slot| Some(slot.home.elsewhere()?.inode().to_string()));
        let is_here = |netns: &str| namespaces.clone().any(|inode| inode == netns);
        let checked = shown.of_victims(&self.victims, &self.host.vmms, is_here);
        let checked = checked.and_then(|nics| self.oracle.check(&nics));
        checked.unwrap_or_else(|problem| panic!("{problem}\n{}", self.host.everything()));
        shown
    }

    pub(super) fn wait(
        &mut self,
        what: &str,
        key: Option<&Key>,
        is_so: impl Fn(&Oracle, &PublishedUse) -> bool,
    ) {
        let waited = wait_until(SOON, what, || {
            let shown = self.look();
            Ok(is_so(&self.oracle, &shown).then_some(()))
        });
        if let Err(error) = waited {
            let about = key.map(|key| self.oracle.describe(key)).unwrap_or_default();
            panic!("{error}: {about}\n{}", self.host.all_of(key));
        }
    }

    /// A VM outside of the configuration must live until the daemon discovered it.
    pub(super) fn wait_until_found(&mut self, slot: usize) {
        let pid = self.slots[slot].nic.as_ref().and_then(|nic| Some(nic.vmm.as_ref()?.pid()));
        if let (Some(pid), true) = (pid, self.is_watched()) {
            let key = self.slots[slot].key.clone();
            self.wait("the VM to be found", Some(&key), |_, shown| shown.pids.get(&key.vm) == Some(&pid));
        }
    }

    pub(super) fn wait_for_final_counters(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].nic.is_none() {
                let key = self.slots[slot].key.clone();
                self.wait("final counters", Some(&key), |oracle, _| oracle.is_settled(&key));
            }
        }
    }

    pub(super) fn wait_for_ends(&mut self) {
        let ending = std::mem::take(&mut self.ending);
        let over = || Ok(ending.iter().all(|life| life.has_ended()).then_some(()));
        wait_until(SOON, "the end of the traffic on devices that go", over).unwrap();
    }

    pub(super) fn wait_until_idle(&self, slot: usize) {
        if let Some(nic) = &self.slots[slot].nic {
            let idle = || Ok((Arc::strong_count(nic) == 1).then_some(()));
            wait_until(SOON, "the end of the traffic", idle).unwrap();
        }
    }

    pub(super) fn take_idle(&mut self, slot: usize) -> Nic {
        self.wait_until_idle(slot);
        Arc::into_inner(self.slots[slot].nic.take().unwrap()).expect("no other owner")
    }
}
