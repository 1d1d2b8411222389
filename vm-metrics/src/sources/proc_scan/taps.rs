//! The TAPs that a process holds open, and what it has instead that cannot be counted.
//!
//! `/proc/<pid>/fdinfo/<fd>` of a `/dev/net/tun` descriptor has a line `iff:\t<name>`. A macvtap has a device node of its
//! own, `/dev/tap<ifindex>`, and sysfs says which device that is.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use super::super::SourceError;
use super::inspect::MAX_NICS;
use super::process::{Process, Unread, read, unread};
use super::vfio::network_devices;
use crate::model::{Nic, UncountedKind, UncountedNic};
use crate::netns::foreign_netns;

/// A busy QEMU has some hundreds.
const MAX_DESCRIPTORS: usize = 65_536;
/// A tun descriptor's is about a hundred bytes.
const FDINFO_LIMIT: u64 = 64 << 10;

/// What a process holds.
#[derive(Debug, Default)]
pub struct Taps {
    pub nics: Vec<Nic>,
    pub uncounted: BTreeSet<UncountedNic>,
    /// A TAP that cannot be listed.
    pub problem: Option<SourceError>,
}

/// In the order in which they were opened. A multi-queue TAP has one descriptor per queue and is one NIC. Where there are
/// more than [`MAX_NICS`], not all are looked for.
///
/// The name follows a rename. It is empty when the device is gone, or the descriptor was never attached to
/// one.
pub fn taps(process: &Process) -> Result<Taps, Unread> {
    let mut taps = Taps::default();
    let mut seen = HashSet::new();
    for descriptor in descriptors(process)? {
        if taps.nics.len() > MAX_NICS || taps.uncounted.len() > MAX_NICS {
            break;
        }
        let nic = match node(process, descriptor)? {
            Some(Node::Tun) => tun(process, descriptor, &mut taps.problem)?,
            Some(Node::Macvtap(node)) => {
                let nic = macvtap(process, descriptor, &node);
                if nic.is_none() {
                    taps.uncounted.insert(UncountedNic { kind: UncountedKind::Macvtap, name: node });
                }
                nic
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
        taps.nics.extend(nic.filter(|nic| seen.insert(nic.clone())));
    }
    Ok(taps)
}

fn tun(process: &Process, descriptor: u32, problem: &mut Option<SourceError>) -> Result<Option<Nic>, Unread> {
    let content = match read(&process.path(&format!("fdinfo/{descriptor}")), FDINFO_LIMIT) {
        Ok(content) => content,
        Err(Unread::Gone) => return Ok(None),
        Err(failed) => return Err(failed),
    };
    let Some(name) = attached(&content) else { return Ok(None) };
    let Ok(name) = str::from_utf8(name) else {
        *problem = Some(not_text(process.pid, name));
        return Ok(None);
    };
    Ok(Some(Nic { tap: name.to_owned(), netns: foreign_netns(process.host, process.pid, descriptor) }))
}

/// The device that a node is of, in the network namespace of this process: there is no way to ask for another one's.
fn macvtap(process: &Process, descriptor: u32, node: &str) -> Option<Nic> {
    let device = process.host.macvtap(node);
    let name = fs::read_link(device.join("device")).ok()?.file_name()?.to_str()?.to_owned();
    // Another namespace may have a macvtap with the same index, which is the name of the node; numbers are not shared.
    let opened = fs::metadata(process.path(&format!("fd/{descriptor}")));
    let is_other = opened.is_ok_and(|opened| !is_number_of(&device, opened.rdev()));
    (!is_other).then(|| Nic::local(name))
}

fn is_number_of(device: &Path, number: u64) -> bool {
    let said = fs::read_to_string(device.join("dev")).unwrap_or_default();
    said.trim() == format!("{}:{}", major(number), minor(number))
}

/// The kernel lets a name be any bytes; a label must be text, and must lead back to the device.
fn not_text(pid: u32, name: &[u8]) -> SourceError {
    let problem = format!("its TAP \"{}\" is left out: the name is not UTF-8", name.escape_ascii());
    SourceError::Process { pid, problem }
}

fn descriptors(process: &Process) -> Result<Vec<u32>, Unread> {
    let path = process.path("fd");
    let entries = fs::read_dir(&path).map_err(|error| unread("list", &path, error))?;
    let mut descriptors = Vec::new();
    for entry in entries.take(MAX_DESCRIPTORS) {
        let entry = entry.map_err(|error| unread("list", &path, error))?;
        descriptors.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    descriptors.sort_unstable();
    Ok(descriptors)
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

fn node(process: &Process, descriptor: u32) -> Result<Option<Node>, Unread> {
    let path = process.path(&format!("fd/{descriptor}"));
    match fs::read_link(&path) {
        Ok(target) => Ok(node_at(&target.to_string_lossy())),
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
