//! The TAPs that a process holds open, and its network devices that cannot be counted.
//!
//! The name of a descriptor is only a reason to look: the kernel says which device it is (`devices`).

use std::collections::{BTreeSet, HashSet};
use std::fs;

use super::super::SourceError;
use super::devices::{Descriptors, Devices, Held};
use super::inspect::MAX_NICS;
use super::kvm::HeldKvm;
use super::process::{Process, Unread, read, unread};
use super::vfio::network_devices;
use crate::model::{Nic, UncountedKind, UncountedNic};

/// A busy QEMU has some hundreds.
pub const MAX_DESCRIPTORS: usize = 65_536;
/// A tun descriptor's is about a hundred bytes.
const FDINFO_LIMIT: u64 = 64 << 10;

/// The network devices that a process holds.
#[derive(Debug, Default)]
pub struct Taps {
    pub nics: Vec<Nic>,
    /// Devices that the kernel was not asked about; they are in no other list.
    pub claimed: Vec<Nic>,
    pub uncounted: BTreeSet<UncountedNic>,
    /// A TAP that cannot be listed, or descriptors that were not looked at.
    pub problem: Option<SourceError>,
    /// Whether the process has more than [`MAX_DESCRIPTORS`].
    pub has_more: bool,
    /// What the process holds of KVM.
    pub kvm: HeldKvm,
}

/// In the order in which they were opened. A multi-queue TAP has one descriptor per queue and is one NIC. Where there are
/// more than [`MAX_NICS`], not all are looked for.
///
/// The name follows a rename. It is empty when the device is gone, or the descriptor was never attached to
/// one.
pub fn taps(process: &Process, uid: Option<u32>, devices: &Devices) -> Result<Taps, Unread> {
    let (listed, has_more) = descriptors(process)?;
    let problem = has_more.then(|| more_descriptors(process.pid));
    let mut taps = Taps { has_more, problem, ..Taps::default() };
    let (mut evident, mut claimed) = (HashSet::new(), HashSet::new());
    let descriptors = devices.of(process, uid);
    for descriptor in listed {
        let Some(target) = target(process, descriptor)? else { continue };
        taps.kvm.add(&target);
        let counts = [taps.nics.len(), taps.claimed.len(), taps.uncounted.len()];
        if counts.iter().any(|count| *count > MAX_NICS) {
            continue;
        }
        let held = match node_at(&target) {
            Some(Node::Tun) => tun(process, &descriptors, descriptor),
            Some(Node::Macvtap(node)) => {
                let held = descriptors.macvtap(descriptor);
                if held.is_none() {
                    taps.uncounted.insert(UncountedNic { kind: UncountedKind::Macvtap, name: node });
                }
                held
            }
            Some(Node::Vfio(group)) => {
                let devices = network_devices(process.host, &group).into_iter();
                taps.uncounted.extend(devices.map(|name| UncountedNic { kind: UncountedKind::Vfio, name }));
                None
            }
            Some(Node::Vdpa(name)) => {
                taps.uncounted.insert(UncountedNic { kind: UncountedKind::VhostVdpa, name });
                None
            }
            None => None,
        };
        match held {
            Some(Held::Evident(nic)) => taps.nics.extend(evident.insert(nic.clone()).then_some(nic)),
            Some(Held::Claimed(nic)) => taps.claimed.extend(claimed.insert(nic.clone()).then_some(nic)),
            Some(Held::BadName(name)) => taps.problem = Some(not_text(process.pid, &name)),
            None => {}
        }
    }
    Ok(taps)
}

fn tun(process: &Process, descriptors: &Descriptors, descriptor: u32) -> Option<Held> {
    descriptors.tun(descriptor, || {
        let content = read(&process.path(&format!("fdinfo/{descriptor}")), FDINFO_LIMIT).ok()?;
        attached(&content).map(<[u8]>::to_vec)
    })
}

/// The kernel lets a name be any bytes; a label must be text, and must lead back to the device.
fn not_text(pid: u32, name: &[u8]) -> SourceError {
    let problem = format!("its TAP \"{}\" is left out: the name is not UTF-8", name.escape_ascii());
    SourceError::Process { pid, problem }
}

fn more_descriptors(pid: u32) -> SourceError {
    let problem =
        format!("it has more than {MAX_DESCRIPTORS} descriptors: NICs among the others are left out");
    SourceError::Process { pid, problem }
}

/// The numbers of the first ones, and whether there are more.
fn descriptors(process: &Process) -> Result<(Vec<u32>, bool), Unread> {
    let path = process.path("fd");
    let entries = fs::read_dir(&path).map_err(|error| unread("list", &path, error))?;
    let mut descriptors = Vec::new();
    let mut entries = entries.peekable();
    for entry in entries.by_ref().take(MAX_DESCRIPTORS) {
        let entry = entry.map_err(|error| unread("list", &path, error))?;
        descriptors.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    descriptors.sort_unstable();
    Ok((descriptors, entries.peek().is_some()))
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

fn target(process: &Process, descriptor: u32) -> Result<Option<String>, Unread> {
    let path = process.path(&format!("fd/{descriptor}"));
    match fs::read_link(&path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) => match unread("read link", path, error) {
            // Closed since the listing.
            Unread::Gone => Ok(None),
            failed @ Unread::Failed(_) => Err(failed),
        },
    }
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
