//! The host, trust and time that every read of a scan needs.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::PATIENCE;
use super::closer::Closer;
use super::devices::Devices;
use crate::host::Host;
use crate::model::Trust;

/// Everything that the reads of one scan need.
#[derive(Debug)]
pub struct Observer {
    pub host: Host,
    pub trust: Trust,
    pub devices: Devices,
    pub pace: WalkTime,
    /// How many processes of hypervisors are no VMs because `[trust]` does not name their users.
    pub shut_out: AtomicUsize,
}

/// How long one look goes through the descriptors of a process before the rest waits for the next tick.
#[derive(Clone, Copy, Debug)]
pub struct WalkTime {
    pub trusted: Duration,
    pub others: Duration,
}

impl Default for WalkTime {
    fn default() -> Self {
        Self { trusted: PATIENCE / 4, others: PATIENCE / 20 }
    }
}

impl Observer {
    pub fn new(host: &Host, trust: &Trust, closer: &Closer, pace: WalkTime) -> Self {
        let devices = Devices::new(host, closer);
        Self { host: host.clone(), trust: trust.clone(), devices, pace, shut_out: AtomicUsize::new(0) }
    }

    /// How long a look goes through the descriptors of a process of this user.
    pub fn time(&self, uid: Option<u32>) -> Duration {
        if self.trust.is_trusted(uid) { self.pace.trusted } else { self.pace.others }
    }
}
