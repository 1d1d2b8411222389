//! Finds the network namespaces of the TAPs that a process has open.

use std::fs;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::tun::{device_netns, is_tun};
use crate::host::Host;

/// Descriptors of a process that are looked at in search of its TAPs.
const MAX_DESCRIPTORS: usize = 4096;

/// The namespaces of the TAPs that a process has open, each looked up when it is asked for.
pub(super) fn namespaces(host: &Host, pid: u32) -> impl Iterator<Item = OwnedFd> {
    let entries = fs::read_dir(host.process(pid).join("fd")).into_iter().flatten().take(MAX_DESCRIPTORS);
    let descriptors = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_tun = fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains("/net/tun"));
        path.file_name().filter(|_| is_tun)?.to_str()?.parse::<u32>().ok()
    });
    descriptors.filter_map(move |descriptor| asked(host, pid, descriptor))
}

/// Only with the host's own process ids: under another root they may mean other processes.
fn asked(host: &Host, pid: u32, descriptor: u32) -> Option<OwnedFd> {
    if *host != Host::default() {
        return None;
    }
    let pid = Pid::from_raw(pid.cast_signed())?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let duplicate = pidfd_getfd(&process, descriptor.cast_signed(), PidfdGetfdFlags::empty()).ok()?;
    if !is_tun(&duplicate) {
        return None;
    }
    device_netns(&duplicate).ok()
}
