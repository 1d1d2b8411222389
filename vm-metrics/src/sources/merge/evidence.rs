//! Facts of the kernel about processes and devices, which check the claims of sources.

use std::collections::HashMap;
use std::path::Path;

use super::fingerprints::Fingerprints;
use crate::host::Host;
use crate::model::{Nic, Trust};

/// Facts of the kernel about one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessEvidence {
    /// In clock ticks since boot.
    pub start_ticks: u64,
    /// `None` where it is unknown.
    pub uid: Option<u32>,
    /// Whether its descriptors were looked at, so that it holds these devices and no others.
    pub is_looked_at: bool,
    pub nics: Vec<Nic>,
    /// It is known only for the devices that it holds: a hypervisor that holds one of them comes first.
    pub is_holder: bool,
    /// They distinguish it from other VMs that claim its id.
    pub fingerprints: Fingerprints,
    /// Pid and start time of the process that was this VM before it.
    pub came_from: Option<(u32, u64)>,
}

/// By process.
pub type ProcessTable = HashMap<u32, ProcessEvidence>;

/// Entries in sysfs that only TUNs, TAPs, macvtaps and ipvtaps have.
const TAP_MARKS: &[&str] = &["tun_flags", "macvtap", "ipvtap"];

/// The kind of device with a name in this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalDevice {
    Absent,
    Tap,
    /// An uplink, a bridge or the loopback: its traffic is not one VM's.
    Other,
}

impl LocalDevice {
    pub fn of(host: &Host, name: &str) -> Self {
        let device = host.net_device(name);
        let has = |mark: &&str| device.join(mark).exists();
        if TAP_MARKS.iter().any(has) {
            Self::Tap
        } else if device.exists() {
            Self::Other
        } else {
            Self::Absent
        }
    }

    /// Whether a process holds the TAP: only then it has a carrier, while it is up.
    pub fn has_carrier(host: &Host, name: &str) -> bool {
        let carrier = |device: &Path| std::fs::read(device.join("carrier"));
        carrier(&host.net_device(name)).is_ok_and(|carrier| carrier.first() == Some(&b'1'))
    }
}

/// The facts that check claims of sources.
#[derive(Clone, Copy)]
pub struct Evidence<'e> {
    pub trust: &'e Trust,
    pub processes: &'e ProcessTable,
    pub device: &'e dyn Fn(&str) -> LocalDevice,
}

impl std::fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").field("processes", self.processes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_taps_count_as_taps() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
        for directory in ["lo", "tap0", "macvtap0/macvtap"] {
            fs::create_dir_all(host.net_device(directory)).unwrap();
        }
        fs::write(host.net_device("tap0/tun_flags"), "0x1002\n").unwrap();
        fs::write(host.net_device("tap0/carrier"), "1\n").unwrap();
        let kinds = ["lo", "tap0", "macvtap0", "later"].map(|name| LocalDevice::of(&host, name));
        assert_eq!(kinds, [LocalDevice::Other, LocalDevice::Tap, LocalDevice::Tap, LocalDevice::Absent]);
        assert!(LocalDevice::has_carrier(&host, "tap0") && !LocalDevice::has_carrier(&host, "lo"));
    }
}
