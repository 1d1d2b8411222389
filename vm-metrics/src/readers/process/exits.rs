//! Watches for the end of hypervisor processes.
//!
//! The kernel makes a pidfd readable when the last thread of its process has ended.

use std::collections::HashMap;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::model::Tenant;
use crate::net::events::EventPoller;

#[derive(Debug)]
pub(crate) struct Exits {
    watch: EventPoller,
    /// By pid: the start of the process, and the pidfd that reports its end.
    watched: HashMap<u32, (u64, OwnedFd)>,
}

impl Exits {
    pub(crate) fn new(watch: EventPoller) -> Self {
        Self { watch, watched: HashMap::new() }
    }

    /// The pid is of the process that started then.
    pub(crate) fn follow(&mut self, pid: u32, start_ticks: u64, tenant: Tenant) {
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

    pub(crate) fn keep_only(&mut self, is_there: impl Fn(u32) -> bool) {
        self.watched.retain(|pid, _| is_there(*pid));
    }
}
