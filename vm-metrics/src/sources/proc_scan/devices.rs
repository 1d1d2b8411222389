//! Asks the kernel which device a descriptor of another process is.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, OFlags, fcntl_getfl};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::closer::Closer;
use crate::host::Host;
use crate::model::Nic;
use crate::net::netns::{Macvtaps, OwnNetns, TUN, device_number, inode_of, is_tun, tun_device};
use crate::sources::process::ProcessDir;

/// State shared by the looks of one scan.
#[derive(Debug)]
pub struct Devices {
    host: Host,
    closer: Closer,
    own_netns: OwnNetns,
    /// The macvtaps of this network namespace, by the number of their character device.
    macvtaps: OnceLock<HashMap<(u32, u32), String>>,
    macvtaps_elsewhere: Macvtaps,
}

/// The descriptors of one process.
#[derive(Debug)]
pub struct Descriptors<'d> {
    devices: &'d Devices,
    process: &'d ProcessDir<'d>,
    uid: Option<u32>,
    /// `None` where the process ids are not those of this kernel, or this kernel has no pidfds.
    pidfd: Option<OwnedFd>,
}

/// A device, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldDevice {
    /// The kernel was asked about the descriptor itself.
    Evident(Nic),
    /// From text in files that are read one after the other: the process may change its descriptors meanwhile.
    Claimed(Nic),
    /// A TAP whose name is not UTF-8.
    BadName(Vec<u8>),
}

impl HeldDevice {
    pub fn is_evident(&self) -> bool {
        matches!(self, Self::Evident(_))
    }

    /// `None` where its name is no text.
    pub fn nic(&self) -> Option<&Nic> {
        match self {
            Self::Evident(nic) | Self::Claimed(nic) => Some(nic),
            Self::BadName(_) => None,
        }
    }
}

impl Devices {
    pub fn new(host: &Host, closer: &Closer) -> Self {
        let (host, closer, own_netns) = (host.clone(), closer.clone(), OwnNetns::of(host));
        let (macvtaps, macvtaps_elsewhere) = (OnceLock::new(), Macvtaps::default());
        Self { host, closer, own_netns, macvtaps, macvtaps_elsewhere }
    }

    pub fn of<'d>(&'d self, process: &'d ProcessDir<'d>, uid: Option<u32>) -> Descriptors<'d> {
        let pidfd = (self.host == Host::default())
            .then(|| Pid::from_raw(process.pid.cast_signed()))
            .flatten()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Descriptors { devices: self, process, uid, pidfd }
    }

    fn nic(&self, tap: String, netns: Option<u64>) -> Nic {
        Nic { tap, netns: self.own_netns.foreign(netns) }
    }

    /// Of this network namespace, else of that of the process, or of one with a name.
    fn macvtap(&self, pid: u32, number: (u32, u32)) -> Option<Nic> {
        if let Some(tap) = self.macvtaps.get_or_init(|| macvtaps(&self.host)).get(&number) {
            return Some(Nic::local(tap));
        }
        let (tap, netns) = self.macvtaps_elsewhere.find(&self.host, pid, number)?;
        Some(Nic { tap, netns: Some(netns) })
    }
}

impl Descriptors<'_> {
    /// The device of a descriptor named `/dev/net/tun`; `None` where it has none.
    ///
    /// `claimed` reads the name in `fdinfo`, for kernels without better evidence.
    pub fn tun(&self, descriptor: u32, claimed: impl FnOnce() -> Option<Vec<u8>>) -> Option<HeldDevice> {
        match self.duplicate(descriptor, |number| number == TUN) {
            Duplicate::Is(file) if is_tun(&file) => match tun_device(&file) {
                Ok(device) => {
                    let device = device?;
                    let text = String::from_utf8(device.name);
                    Some(text.map_or_else(
                        |error| HeldDevice::BadName(error.into_bytes()),
                        |tap| HeldDevice::Evident(self.devices.nic(tap, Some(device.netns))),
                    ))
                }
                Err(_) => self.claim(claimed()?),
            },
            Duplicate::Is(file) => {
                self.devices.closer.close(file, self.uid);
                None
            }
            Duplicate::Closed => None,
            Duplicate::Refused => self.claim(claimed()?),
        }
    }

    /// The macvtap of a descriptor whose name says that it is one; `None` for another file, and for one in a
    /// network namespace that is not found.
    pub fn macvtap(&self, descriptor: u32) -> Option<HeldDevice> {
        let path = self.process.path(&format!("fd/{descriptor}"));
        let macvtap = |number| self.devices.macvtap(self.process.pid, number);
        match self.duplicate(descriptor, |number| macvtap(number).is_some()) {
            Duplicate::Is(file) => {
                let number = device_number(&file, "", AtFlags::EMPTY_PATH);
                // Anybody may have a descriptor that only names the file.
                let is_open = fcntl_getfl(&file).is_ok_and(|flags| !flags.contains(OFlags::PATH));
                let Some(number) = number else {
                    self.devices.closer.close(file, self.uid);
                    return None;
                };
                Some(HeldDevice::Evident(macvtap(number).filter(|_| is_open)?))
            }
            Duplicate::Closed => None,
            Duplicate::Refused => {
                let number = device_number(CWD, path, AtFlags::empty())?;
                Some(HeldDevice::Claimed(macvtap(number)?))
            }
        }
    }

    /// The number is checked first: to close a duplicate of a file on a tenant's file system may wait for the tenant.
    fn duplicate(&self, descriptor: u32, is_wanted: impl Fn((u32, u32)) -> bool) -> Duplicate {
        let Some(pidfd) = &self.pidfd else { return Duplicate::Refused };
        let path = self.process.path(&format!("fd/{descriptor}"));
        let is_it = device_number(CWD, path, AtFlags::empty()).is_some_and(is_wanted);
        if !is_it || self.devices.closer.is_full(self.uid) {
            return Duplicate::Closed;
        }
        match pidfd_getfd(pidfd.as_fd(), descriptor.cast_signed(), PidfdGetfdFlags::empty()) {
            Ok(file) => Duplicate::Is(file),
            Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => Duplicate::Closed,
            Err(_) => Duplicate::Refused,
        }
    }

    fn claim(&self, name: Vec<u8>) -> Option<HeldDevice> {
        let netns = inode_of(self.process.path("ns/net"));
        Some(match String::from_utf8(name) {
            Ok(tap) => HeldDevice::Claimed(self.devices.nic(tap, netns)),
            Err(error) => HeldDevice::BadName(error.into_bytes()),
        })
    }
}

enum Duplicate {
    Is(OwnedFd),
    /// It was closed, or is another file.
    Closed,
    /// This process may not ask, or this kernel does not know how.
    Refused,
}

fn macvtaps(host: &Host) -> HashMap<(u32, u32), String> {
    let nodes = fs::read_dir(host.macvtaps()).into_iter().flatten().flatten();
    nodes.filter_map(|node| macvtap(&node.path())).collect()
}

fn macvtap(node: &Path) -> Option<((u32, u32), String)> {
    let number = fs::read_to_string(node.join("dev")).ok()?;
    let (major, minor) = number.trim().split_once(':')?;
    let device = fs::read_link(node.join("device")).ok()?;
    Some(((major.parse().ok()?, minor.parse().ok()?), device.file_name()?.to_str()?.to_owned()))
}
