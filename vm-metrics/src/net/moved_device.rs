//! Recognises a device in the network namespace that it has moved to.

use serde::{Deserialize, Serialize};

use crate::model::{Device, FIRST_NUMBER, Nic};

/// A device that has left its namespace for another one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct MovedDevice {
    tap: String,
    from: Option<u64>,
    /// The number that the kernel gives to no other device of this process's own namespace. It is the same when the
    /// device is back.
    #[serde(default)]
    device: Option<u64>,
    /// The index in the new namespace; 0 where the kernel does not give it.
    ifindex: u32,
}

impl MovedDevice {
    pub(crate) fn new(nic: &Nic, device: &Device, ifindex: u32) -> Self {
        let birth = device.birth.filter(|birth| nic.netns.is_none() && *birth < FIRST_NUMBER);
        Self { tap: nic.tap.clone(), from: nic.netns, device: birth, ifindex }
    }

    /// Whether a device that was found is this one. If it `is_recent`, the index alone is enough, or the name alone where
    /// the index is not known. Later, both must match.
    pub(crate) fn is(&self, nic: &Nic, device: &Device, is_recent: bool) -> bool {
        let is_named = self.tap == nic.tap;
        let same = match (self.ifindex, device.id.ifindex) {
            (0, _) | (_, 0) => is_named && is_recent,
            (then, now) => then == now && (is_named || is_recent),
        };
        match self.device.zip(device.birth) {
            _ if self.from != nic.netns => same,
            // It is back from an unwatched namespace.
            Some((then, now)) if nic.netns.is_none() => then == now,
            _ => same && is_named,
        }
    }
}
