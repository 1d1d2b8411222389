//! Finds the VMs of devices that came and went between two ticks.
//!
//! The kernel reports the name and the counters of each deleted device. A VM may make its TAP anew many times in one
//! tick.

use std::collections::{HashMap, HashSet};

use super::sums::VmKey;
use super::{Continuity, ContinuityTick};
use crate::model::{Batch, InstanceInfo, Nic, ShortLivedDevice, VmSet};

/// Ticks for which a device waits until its VM is listed.
const PATIENCE: u64 = 2;

/// Seconds for which the name of a lost device still belongs to its VM.
const KEEP_NAMES: f64 = 60.0;

/// The number of waiting devices, and of remembered names.
const MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct ShortLivedDevices {
    /// Devices of the VMs of this tick.
    found: HashMap<VmKey, Vec<ShortLivedDevice>>,
    /// With the tick of its notice.
    waiting: Vec<(u64, ShortLivedDevice)>,
    /// The VM that lost a device of this name, and when.
    lost: HashMap<Nic, (VmKey, f64)>,
}

impl ShortLivedDevices {
    /// Takes in the devices of a tick. A device without a known VM is looked up again in the next tick.
    pub(super) fn assign(
        &mut self,
        (tick, now): (u64, f64),
        devices: impl IntoIterator<Item = ShortLivedDevice>,
        present: &VmSet,
        removals: &VmSet,
    ) {
        self.found.clear();
        self.lost.retain(|_, (_, lost_at)| now - *lost_at < KEEP_NAMES);
        self.waiting.retain(|(heard, ..)| tick - heard < PATIENCE);
        let room = MAX.saturating_sub(self.waiting.len());
        self.waiting.extend(devices.into_iter().take(room).map(|device| (tick, device)));
        if !removals.vms.is_empty() || !self.waiting.is_empty() {
            self.find(now, present, removals);
        }
    }

    fn find(&mut self, now: f64, present: &VmSet, removals: &VmSet) {
        let owners = |vms: &VmSet| -> HashMap<Nic, VmKey> {
            let of_vm = |vm| {
                let key = VmKey::of(vm);
                vm.nics.iter().map(move |nic| (nic.clone(), key.clone()))
            };
            vms.vms.iter().flat_map(of_vm).collect()
        };
        let lose = owners(removals);
        if !self.waiting.is_empty() {
            let (have, there) = (owners(present), present.vms.iter().map(VmKey::of).collect::<HashSet<_>>());
            let had = |nic: &Nic| {
                let (owner, _) = self.lost.get(nic)?;
                there.contains(owner).then_some(owner)
            };
            self.waiting.retain(|(_, device)| {
                let nic = &device.nic;
                let owner = have.get(nic).or_else(|| lose.get(nic)).or_else(|| had(nic));
                if let Some(owner) = owner {
                    self.found.entry(owner.clone()).or_default().push(device.clone());
                }
                owner.is_none()
            });
        }
        let room = MAX.saturating_sub(self.lost.len());
        self.lost.extend(lose.into_iter().take(room).map(|(nic, owner)| (nic, (owner, now))));
    }

    /// Takes the devices of one VM.
    pub(super) fn take(&mut self, vm: &VmKey) -> Vec<ShortLivedDevice> {
        self.found.remove(vm).unwrap_or_default()
    }
}

impl ContinuityTick<'_> {
    /// Finds the VMs of devices that came and went since the last tick.
    ///
    /// A device with an account was read, and the merge publishes its final counters by that.
    pub(super) fn assign_short_lived(&mut self, present: &VmSet, removals: &VmSet, batch: &Batch) {
        let Self { state, now, .. } = self;
        let Continuity { accounts, short_lived, tick, .. } = &mut **state;
        let unread = batch.short_lived.iter().filter(|unread| !accounts.contains_key(&unread.device.id));
        short_lived.assign((*tick, *now), unread.cloned(), present, removals);
    }

    /// Takes the devices of a VM that came and went since the last tick.
    pub(in crate::manager) fn take_short_lived(&mut self, vm: &InstanceInfo) -> Vec<ShortLivedDevice> {
        let devices = self.state.short_lived.take(&VmKey::of(vm));
        self.state.changed |= !devices.is_empty();
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Device, TapStats};

    fn vms(list: &[(&str, &[&str])]) -> VmSet {
        let vm = |(id, taps): &(&str, &[&str])| InstanceInfo {
            id: (*id).into(),
            hypervisor_pid: Some(1),
            nics: taps.iter().map(|tap| Nic::local(*tap)).collect(),
            ..InstanceInfo::default()
        };
        VmSet { vms: list.iter().map(vm).collect() }
    }

    fn device(tap: &str, rx_bytes: u64) -> ShortLivedDevice {
        let stats = TapStats { rx_bytes, ..TapStats::default() };
        ShortLivedDevice { nic: Nic::local(tap), device: Device::default(), stats }
    }

    fn of(devices: &mut ShortLivedDevices, id: &str) -> Vec<u64> {
        let devices = devices.take(&VmKey::of(&vms(&[(id, &[])]).vms[0]));
        devices.iter().map(|device| device.stats.rx_bytes).collect()
    }

    #[test]
    fn a_device_belongs_to_its_names_vm() {
        let mut devices = ShortLivedDevices::default();
        let came = [device("t0", 5), device("t1", 6), device("t0", 7), device("other", 8)];
        devices.assign((1, 0.0), came, &vms(&[("a", &["t0"])]), &vms(&[("b", &["t0", "t1"])]));
        assert_eq!(of(&mut devices, "a"), [5, 7]);
        assert_eq!(of(&mut devices, "a"), [0; 0], "once");
        assert_eq!(of(&mut devices, "b"), [6]);
    }

    #[test]
    fn a_device_waits_for_its_vm() {
        let mut devices = ShortLivedDevices::default();
        devices.assign((1, 0.0), [device("t0", 5)], &VmSet::default(), &VmSet::default());
        devices.assign((2, 1.0), [], &vms(&[("a", &["t0"])]), &VmSet::default());
        assert_eq!(of(&mut devices, "a"), [5]);
        devices.assign((3, 2.0), [device("t1", 6)], &VmSet::default(), &VmSet::default());
        devices.assign((4, 3.0), [], &VmSet::default(), &VmSet::default());
        devices.assign((5, 4.0), [], &vms(&[("b", &["t1"])]), &VmSet::default());
        assert_eq!(of(&mut devices, "b"), [0; 0], "but not for long");
    }

    #[test]
    fn a_vm_owns_its_just_lost_device() {
        let mut devices = ShortLivedDevices::default();
        let bare = || vms(&[("a", &[])]);
        devices.assign((1, 0.0), [], &bare(), &vms(&[("a", &["t0"])]));
        devices.assign((2, 1.0), [device("t0", 5)], &bare(), &VmSet::default());
        assert_eq!(of(&mut devices, "a"), [5]);
        devices.assign((3, KEEP_NAMES), [device("t0", 6)], &bare(), &VmSet::default());
        assert_eq!(of(&mut devices, "a"), [0; 0]);
    }
}
