//! The NICs of a VM: held by its process, else named by its command line.

use std::collections::{BTreeSet, HashSet};
use std::iter;

use super::super::super::SourceError;
use super::super::holdings::{Holdings, HoldingsUpdate};
use super::super::kvm::KvmDescriptors;
use super::super::taps::{DeviceDescriptor, Taps};
use super::ProcessVm;
use crate::model::{Hypervisor, InstanceInfo, Nic, UnmonitoredKind, UnmonitoredNic};
use crate::sources::values::bounded::{MAX_NICS, MAX_VCPUS};

const NOT_ALL_YET: &str =
    "it has many descriptors: the next ticks look at the rest, and NICs among them are not known yet";

const NOT_EVIDENT: &str = "the kernel does not say which of its TAPs are whose (CAP_SYS_PTRACE, CAP_NET_ADMIN and \
    Linux 5.8), and its user is not in [trust]: they are left out";

/// The share of one process in the NICs of a VM.
#[derive(Debug, Default)]
pub struct Share {
    /// The devices that the process itself was seen to hold.
    known: Vec<DeviceDescriptor>,
    /// Those of its command line, for want of a look at its descriptors.
    named: Vec<Nic>,
    unmonitored: Vec<UnmonitoredNic>,
    /// Whether it holds NICs that are left out.
    has_lost_nics: bool,
    problem: Option<SourceError>,
}

impl Share {
    pub fn problem(&self) -> Option<&SourceError> {
        self.problem.as_ref()
    }

    /// A device with several descriptors comes several times.
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.known.iter().filter_map(|(_, held)| held.nic()).chain(&self.named)
    }

    /// Those of its NICs that may be asked about.
    fn known(&self, is_wanted: impl Fn(&Nic) -> bool) -> Vec<DeviceDescriptor> {
        let is_wanted = |(_, held): &&DeviceDescriptor| held.nic().is_some_and(&is_wanted);
        self.known.iter().filter(is_wanted).cloned().collect()
    }

    /// The process has closed these.
    fn lose(&mut self, lost: &[DeviceDescriptor]) {
        self.known.retain(|known| !lost.contains(known));
    }

    /// Whether the VM has nothing from it.
    pub fn is_empty(&self) -> bool {
        self.nics().next().is_none() && self.unmonitored.is_empty() && !self.has_lost_nics
    }
}

impl ProcessVm {
    /// The share of a descendant of the VM's process, without NICs of others.
    pub fn share(self, is_wanted: impl Fn(&Nic) -> bool) -> Share {
        let has_lost_nics = self.info.has_more_nics || !self.is_looked_at;
        Share { known: self.own.known(is_wanted), named: Vec::new(), has_lost_nics, ..self.own }
    }

    /// This process holds so much of the VM's NICs from now on.
    pub fn set_heir(&mut self, heir: u32, share: Option<Share>) {
        self.heirs.retain(|(known, _)| *known != heir);
        self.heirs.extend(share.filter(|share| !share.is_empty()).map(|share| (heir, share)));
        self.gather();
    }

    /// The VM's NICs are those of its process and of the heirs.
    fn gather(&mut self) {
        let shares = || iter::once(&self.own).chain(self.heirs.iter().map(|(_, share)| share));
        let mut seen = HashSet::new();
        let nics = shares().flat_map(Share::nics).filter(|nic| seen.insert(*nic)).cloned().collect();
        let unmonitored: BTreeSet<_> = shares().flat_map(|share| &share.unmonitored).cloned().collect();
        let has_lost_nics = shares().any(|share| share.has_lost_nics);
        self.info.nics = nics;
        self.info.unmonitored = unmonitored.into_iter().collect();
        self.keep_inherited();
        self.limit_nics(has_lost_nics);
    }

    /// Takes in a look at the process, which was asked about all of [`Self::known`].
    pub fn take_now(&mut self, now: HoldingsUpdate) {
        let HoldingsUpdate { nics, still } = now;
        if nics.is_partial() {
            let lost: Vec<DeviceDescriptor> =
                self.known().into_iter().filter(|known| !still.contains(known)).collect();
            self.lose(self.pid, &lost);
        }
        self.take_nics(nics);
    }

    /// The devices found in the process itself.
    pub fn known(&self) -> Vec<DeviceDescriptor> {
        self.own.known.clone()
    }

    /// The VM's process and the others that hold some of the NICs that are wanted, with these.
    pub fn holders(&self, is_wanted: impl Fn(&Nic) -> bool) -> Vec<(u32, Vec<DeviceDescriptor>)> {
        let heirs = self.heirs.iter().map(|(heir, share)| (*heir, share));
        let shares = iter::once((self.pid, &self.own)).chain(heirs);
        let known = shares.map(|(holder, share)| (holder, share.known(&is_wanted)));
        known.filter(|(holder, known)| *holder == self.pid || !known.is_empty()).collect()
    }

    /// The VM's process, or one that has come from it, holds these no more.
    pub fn lose(&mut self, holder: u32, lost: &[DeviceDescriptor]) {
        if holder == self.pid {
            self.own.lose(lost);
        }
        for (_, share) in self.heirs.iter_mut().filter(|(heir, _)| *heir == holder) {
            share.lose(lost);
        }
        self.gather();
    }

    /// Updates the NICs by the held TAPs. The command line of a trusted user's process replaces unreadable descriptors. Known
    /// devices that are still held stay until the look at all descriptors has ended.
    pub fn take_nics(&mut self, held: Holdings) {
        let is_partial = held.is_partial();
        self.progress = is_partial.then(|| Box::new(held.clone()));
        if !is_partial || !self.is_known_whole {
            self.is_known_whole = !is_partial;
            self.set_held(held);
        }
    }

    /// The look at its descriptors that has not ended.
    pub fn progress(&self) -> Option<&Holdings> {
        self.progress.as_deref()
    }

    fn set_held(&mut self, held: Holdings) {
        let is_partial = held.is_partial();
        let Holdings { descriptors, uid, is_trusted, taps, .. } = held;
        match taps {
            Ok(taps) => {
                if !is_partial {
                    self.take_kvm(&taps.kvm);
                }
                let mut known = taps.known();
                let Taps { unmonitored, problem, .. } = taps;
                self.is_looked_at = is_trusted || known.iter().all(|(_, held)| held.is_evident());
                let problem =
                    problem.or_else(|| is_partial.then(|| SourceError::process(self.pid, NOT_ALL_YET)));
                // One whose name is no text is left out, too.
                let has_lost_nics = !self.is_looked_at || problem.is_some();
                let problem = if self.is_looked_at {
                    problem
                } else {
                    Some(SourceError::process(self.pid, NOT_EVIDENT))
                };
                known.retain(|(_, held)| self.is_looked_at || held.is_evident());
                self.own = Share { known, problem, has_lost_nics, ..Share::default() };
                self.set_unmonitored(unmonitored);
            }
            Err(refused) => {
                self.is_looked_at = false;
                self.vcpus.by_kvm = None;
                let named = if is_trusted { self.named_nics.clone() } else { Vec::new() };
                let problem = Some(self.not_allowed(is_trusted, &refused));
                self.own = Share { named, problem, ..Share::default() };
                self.set_unmonitored(BTreeSet::new());
            }
        }
        self.descriptors = descriptors;
        self.info.uid = uid;
        if !matches!(self.info.hypervisor, Hypervisor::Program(_)) {
            self.info.allocated_vcpus = self.vcpus.now();
        }
        self.gather();
    }

    /// The command line of a known hypervisor comes first: [`Vcpus::now`](super::super::vcpus::Vcpus::now).
    fn take_kvm(&mut self, kvm: &KvmDescriptors) {
        self.has_vcpus = kvm.has_vcpus();
        self.vcpus.by_kvm = if kvm.has_vcpus() { kvm.vcpus() } else { Some(0) };
        if matches!(self.info.hypervisor, Hypervisor::Program(_)) && kvm.has_vcpus() {
            self.info.allocated_vcpus = kvm.vcpus().filter(|vcpus| *vcpus <= MAX_VCPUS);
        }
    }

    /// Whether its process held vCPUs of KVM at the last look.
    pub fn runs_by_kvm(&self) -> bool {
        self.has_vcpus
    }

    pub(super) fn keep_inherited(&mut self) {
        if let Some(inherited) = &self.inherited {
            self.info.nics.retain(|nic| inherited.contains(nic));
        }
    }

    /// Whether the process has as many descriptors as before.
    pub fn holds_as_many(&self, descriptors: Option<u64>) -> bool {
        self.progress.is_none() && self.descriptors == descriptors
    }

    /// The command line names the first NICs; descriptors show some of the later ones.
    fn set_unmonitored(&mut self, mut held: BTreeSet<UnmonitoredNic>) {
        // A vDPA device that was handed on as a descriptor has another name on the command line: it is one NIC.
        let is_vdpa = |nic: &&UnmonitoredNic| nic.kind == UnmonitoredKind::VhostVdpa;
        let only_held = |nic: &&UnmonitoredNic| !self.named_unmonitored.contains(nic);
        let mut pairs = held.iter().filter(is_vdpa).filter(only_held).count();
        for nic in &self.named_unmonitored {
            let is_other_name = is_vdpa(&nic) && !held.contains(nic);
            match pairs.checked_sub(usize::from(is_other_name)) {
                Some(left) if is_other_name => pairs = left,
                _ => drop(held.insert(nic.clone())),
            }
        }
        self.own.unmonitored = held.into_iter().collect();
    }

    fn limit_nics(&mut self, has_lost_nics: bool) {
        let InstanceInfo { nics, unmonitored, .. } = &mut self.info;
        let too_many = nics.len() > MAX_NICS || unmonitored.len() > MAX_NICS;
        nics.truncate(MAX_NICS);
        unmonitored.truncate(MAX_NICS);
        self.info.has_more_nics = too_many || has_lost_nics;
        self.has_too_many_nics = too_many;
    }

    fn not_allowed(&self, is_trusted: bool, error: &SourceError) -> SourceError {
        let taps: Vec<_> = self.named_nics.iter().map(|nic| nic.tap.as_str()).collect();
        let instead = match (taps.is_empty(), is_trusted) {
            (true, _) => "its command line names no TAP either".to_owned(),
            (false, true) => format!("taken from its command line: {}", taps.join(", ")),
            (false, false) => "its command line does not count, for its user is not in [trust]".to_owned(),
        };
        let problem = format!("its TAPs need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH ({error}); {instead}");
        SourceError::process(self.pid, problem)
    }
}
