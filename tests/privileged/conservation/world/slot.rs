//! One VM of the schedule, and the place of its device.

use std::sync::Arc;

use vm_metrics_testkit::netns::ForeignNetNs;

use super::super::oracle::Key;
use super::super::traffic::Nic;

const LISTED: usize = 14;
const FOUND: usize = 6;
/// Where the daemon is.
pub(super) const HERE: usize = LISTED + FOUND;
/// Slots in a namespace that outlives the VM, like one of a pool.
const POOLED: usize = 2;
/// Slots in a namespace that lives as long as the VM.
const JAILED: usize = 2;
pub(super) const SLOTS: usize = HERE + POOLED + JAILED;

#[derive(Debug)]
pub(super) struct Slot {
    /// Key of the latest device.
    pub(super) key: Key,
    pub(super) home: Location,
    pub(super) found: bool,
    pub(super) persistent: bool,
    pub(super) nic: Option<Arc<Nic>>,
}

/// Where the device is.
#[derive(Debug)]
pub(super) enum Location {
    /// Where the daemon is.
    Here,
    Pooled(ForeignNetNs),
    Jailed(Option<ForeignNetNs>),
}

impl Slot {
    pub(super) fn new(index: usize) -> Self {
        const LAST: usize = HERE + POOLED;
        let (vm, home) = match index {
            0..LISTED => ("listed", Location::Here),
            LISTED..HERE => ("found", Location::Here),
            HERE..LAST => ("pooled", Location::Pooled(ForeignNetNs::new().unwrap())),
            _ => ("jailed", Location::Jailed(None)),
        };
        // In foreign namespaces the name equals that of the first slot, which is in the daemon's.
        let tap = format!("vmc{}", if index < HERE { index } else { 0 });
        let key = Key { vm: format!("{vm}-{index}"), tap, netns: String::new() };
        Self { key, home, found: index >= LISTED, persistent: false, nic: None }
    }

    /// Prepares the namespace of a new VM.
    pub(super) fn move_in(&mut self, persistent: bool) {
        self.persistent = persistent;
        if let Location::Jailed(namespace) = &mut self.home {
            *namespace = Some(ForeignNetNs::new().unwrap());
        }
        if let Some(namespace) = self.home.elsewhere() {
            self.key.netns = namespace.inode().to_string();
        }
    }
}

impl Location {
    pub(super) fn elsewhere(&self) -> Option<&ForeignNetNs> {
        match self {
            Self::Here => None,
            Self::Pooled(namespace) => Some(namespace),
            Self::Jailed(namespace) => namespace.as_ref(),
        }
    }

    /// Removes the namespace of an ended VM.
    pub(super) fn leave(&mut self) {
        if let Self::Jailed(namespace) = self {
            *namespace = None;
        }
    }
}
