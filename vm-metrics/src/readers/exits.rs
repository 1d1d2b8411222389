//! Hypervisor processes whose end is news: by pidfds, which the kernel makes readable when the last thread has ended.

use std::collections::HashMap;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Watch;
use crate::model::Tenant;

#[derive(Debug)]
pub(super) struct Exits {
    watch: Watch,
    /// By pid: when the process started, and what tells of its end.
    watched: HashMap<u32, (u64, OwnedFd)>,
}

impl Exits {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, watched: HashMap::new() }
    }

    /// The pid is of the process that started then.
    pub(super) fn follow(&mut self, pid: u32, start_ticks: u64, tenant: Tenant) {
        if self.watched.get(&pid).is_some_and(|(known, _)| *known == start_ticks) {
            return;
        }
        let opened = Pid::from_raw(pid.cast_signed()).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        // One that has ended already, or that no file is left for, is found by the next tick.
        if let Some(Ok(pidfd)) = opened {
            self.watch.add(&pidfd, tenant);
            self.watched.insert(pid, (start_ticks, pidfd));
        }
    }

    pub(super) fn keep_only(&mut self, is_there: impl Fn(u32) -> bool) {
        self.watched.retain(|pid, _| is_there(*pid));
    }
}
