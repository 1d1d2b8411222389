//! The TAPs that a process holds open, and its unmonitored network devices.
//!
//! The name of a descriptor is only a reason to ask the kernel for its device (`devices`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::SourceError;
use super::devices::{Descriptors, Devices, HeldDevice};
use super::kvm::KvmDescriptors;
use super::walk::{DirOffset, walk};
use crate::model::{UnmonitoredKind, UnmonitoredNic};
use crate::sources::process::{ProcessDir, ReadError, read};
use crate::sources::values::bounded::MAX_NICS;
use crate::sources::values::pci::network_devices;

/// A tun descriptor's is about a hundred bytes.
const FDINFO_LIMIT: u64 = 64 << 10;

/// A TAP or macvtap, and the descriptor by which it is known. One of a name that is no text is none.
pub type DeviceDescriptor = (u32, HeldDevice);

/// The network devices that a process holds.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    known: Vec<DeviceDescriptor>,
    pub unmonitored: BTreeSet<UnmonitoredNic>,
    /// A TAP that cannot be listed.
    pub problem: Option<SourceError>,
    /// KVM descriptors of the process.
    pub kvm: KvmDescriptors,
    /// Where the look at the other descriptors goes on.
    pub rest: Option<DirOffset>,
}

impl Taps {
    /// Those that are evident come before those that are claimed.
    pub fn known(&self) -> Vec<DeviceDescriptor> {
        let (mut known, claimed): (Vec<_>, Vec<_>) =
            self.known.iter().cloned().partition(|(_, held)| held.is_evident());
        known.extend(claimed);
        known
    }

    fn is_full(&self) -> bool {
        let evident = self.known.iter().filter(|(_, held)| held.is_evident()).count();
        let counts = [evident, self.known.len() - evident, self.unmonitored.len()];
        counts.iter().any(|count| *count > MAX_NICS)
    }

    fn take(&mut self, pid: u32, descriptor: u32, held: HeldDevice) {
        match held {
            HeldDevice::BadName(name) => self.problem = Some(not_text(pid, &name)),
            held if self.known.iter().all(|(_, known)| *known != held) => {
                self.known.push((descriptor, held));
            }
            HeldDevice::Evident(_) | HeldDevice::Claimed(_) => {}
        }
    }
}

/// In the order in which they were opened. A multi-queue TAP has one descriptor per queue and is one NIC. Where there are
/// more than [`MAX_NICS`], not all are looked for.
///
/// The name follows a rename. It is empty when the device is gone, or the descriptor was never attached to
/// one.
///
/// Another call goes on with the [`rest`](Taps::rest) when the time is over.
pub fn taps(
    process: &ProcessDir,
    uid: Option<u32>,
    devices: &Devices,
    before: Option<Taps>,
    time: Duration,
) -> Result<Taps, ReadError> {
    let descriptors = devices.of(process, uid);
    let goes_on = before.is_some();
    let mut taps = before.unwrap_or_default();
    let from = taps.rest.take();
    taps.rest = walk(process, from, time, |descriptor, target| {
        taps.kvm.add(target);
        if taps.is_full() {
            return;
        }
        match node_at(target) {
            Some(Node::Tun) => {
                let held = tun(process, &descriptors, descriptor);
                held.into_iter().for_each(|held| taps.take(process.pid, descriptor, held));
            }
            Some(Node::Macvtap(node)) => match descriptors.macvtap(descriptor) {
                Some(held) => taps.take(process.pid, descriptor, held),
                None => {
                    taps.unmonitored.insert(UnmonitoredNic { kind: UnmonitoredKind::Macvtap, name: node });
                }
            },
            Some(Node::Vfio(group)) => {
                let devices = network_devices(process.host, &group).into_iter();
                taps.unmonitored
                    .extend(devices.map(|name| UnmonitoredNic { kind: UnmonitoredKind::Vfio, name }));
            }
            Some(Node::Vdpa(name)) => {
                taps.unmonitored.insert(UnmonitoredNic { kind: UnmonitoredKind::VhostVdpa, name });
            }
            None => {}
        }
    })?;
    if goes_on {
        // Devices of an earlier tick may belong to another VM now.
        taps.known.retain(|known| is_held(process, &descriptors, known));
    }
    Ok(taps)
}

/// Those of the devices that the process still holds under the same descriptors. It asks about few, at once.
pub fn still_held(
    process: &ProcessDir,
    uid: Option<u32>,
    devices: &Devices,
    known: Vec<DeviceDescriptor>,
) -> Vec<DeviceDescriptor> {
    let descriptors = devices.of(process, uid);
    known.into_iter().filter(|known| is_held(process, &descriptors, known)).collect()
}

fn is_held(process: &ProcessDir, descriptors: &Descriptors, (descriptor, known): &DeviceDescriptor) -> bool {
    let held = [descriptors.macvtap(*descriptor), tun(process, descriptors, *descriptor)];
    held.iter().flatten().any(|held| held == known)
}

fn tun(process: &ProcessDir, descriptors: &Descriptors, descriptor: u32) -> Option<HeldDevice> {
    descriptors.tun(descriptor, || {
        let content = read(&process.path(&format!("fdinfo/{descriptor}")), FDINFO_LIMIT).ok()?;
        attached(&content).map(<[u8]>::to_vec)
    })
}

/// The kernel lets a name be any bytes; a label must be text, and must lead back to the device.
fn not_text(pid: u32, name: &[u8]) -> SourceError {
    SourceError::process(
        pid,
        format!("its TAP \"{}\" is left out: the name is not UTF-8", name.escape_ascii()),
    )
}

enum Node {
    Tun,
    /// The file name of the node.
    Macvtap(String),
    /// An IOMMU group.
    Vfio(String),
    /// The file name of the node.
    Vdpa(String),
}

/// In a chroot or another mount namespace the path has something before, or lacks `/dev`.
fn node_at(path: &str) -> Option<Node> {
    // The node of a macvtap goes with the device; the one in a chroot may be removed while it is open.
    if path.strip_suffix(" (deleted)").unwrap_or(path).ends_with("/net/tun") {
        return Some(Node::Tun);
    }
    let node = path.rsplit('/').next()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if path.ends_with(&format!("/vfio/{node}")) && is_number(node) {
        return Some(Node::Vfio(node.to_owned()));
    }
    if node.strip_prefix("vhost-vdpa-").is_some_and(is_number) {
        return Some(Node::Vdpa(node.to_owned()));
    }
    node.strip_prefix("tap").is_some_and(is_number).then(|| Node::Macvtap(node.to_owned()))
}

fn attached(fdinfo: &[u8]) -> Option<&[u8]> {
    let name = fdinfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"iff:"))?;
    let name = name.trim_ascii();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fdinfo() {
        let content = b"pos:\t0\nflags:\t0104002\nmnt_id:\t25\nino:\t85\niff:\tvnet0\n";
        assert_eq!(attached(content), Some(&b"vnet0"[..]));
        assert_eq!(attached(b"pos:\t0\niff:\t\n"), None);
        assert_eq!(attached(b"pos:\t0\n"), None);
        assert_eq!(attached(b""), None);
    }

    #[test]
    fn nodes() {
        let macvtap = |path| match node_at(path) {
            Some(Node::Macvtap(node)) => node,
            _ => String::new(),
        };
        for path in ["/dev/net/tun", "/net/tun", "/jail/dev/net/tun (deleted)"] {
            assert!(matches!(node_at(path), Some(Node::Tun)), "{path}");
        }
        assert_eq!(["/dev/tap7", "/jail/tap12"].map(macvtap), ["tap7", "tap12"]);
        for path in
            ["/dev/tap", "/dev/tap7 (deleted)", "/tmp/tap7.log", "/dev/null", "socket:[7]", "/dev/mytap7"]
        {
            assert!(node_at(path).is_none(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_fdinfo_never_panics(content in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = attached(&content);
        }
    }
}
