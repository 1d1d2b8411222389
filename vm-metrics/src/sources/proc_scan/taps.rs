//! The TAPs that a process holds open: `/proc/<pid>/fdinfo/<fd>` of a `/dev/net/tun` descriptor has a line
//! `iff:\t<name>`.

use std::fs;

use super::super::SourceError;
use super::device_netns::foreign_netns;
use super::process::{Process, Unread, read, unread};
use crate::model::Nic;

/// A busy QEMU has some hundreds.
const MAX_DESCRIPTORS: usize = 65_536;
/// A tun descriptor's is about a hundred bytes.
const FDINFO_LIMIT: u64 = 64 << 10;

/// What a process holds.
#[derive(Debug, Default)]
pub struct Taps {
    pub nics: Vec<Nic>,
    /// A TAP that cannot be listed.
    pub problem: Option<SourceError>,
}

/// In the order in which they were opened. A multi-queue TAP has one descriptor per queue and is one NIC.
///
/// The name follows a rename. It is empty when the device is gone, or the descriptor was never attached to
/// one.
pub fn taps(process: &Process) -> Result<Taps, Unread> {
    let mut taps = Taps::default();
    for descriptor in descriptors(process)? {
        if !is_tun(process, descriptor)? {
            continue;
        }
        let content = match read(&process.path(&format!("fdinfo/{descriptor}")), FDINFO_LIMIT) {
            Ok(content) => content,
            Err(Unread::Gone) => continue,
            Err(failed) => return Err(failed),
        };
        let Some(name) = attached(&content) else { continue };
        let Ok(name) = str::from_utf8(name) else {
            taps.problem = Some(not_text(process.pid, name));
            continue;
        };
        let nic = Nic { tap: name.to_owned(), netns: foreign_netns(process, descriptor) };
        if !taps.nics.contains(&nic) {
            taps.nics.push(nic);
        }
    }
    Ok(taps)
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

fn is_tun(process: &Process, descriptor: u32) -> Result<bool, Unread> {
    let path = process.path(&format!("fd/{descriptor}"));
    match fs::read_link(&path) {
        Ok(target) => {
            let target = target.to_string_lossy();
            // In a chroot or another mount namespace the path has something before, or lacks `/dev`.
            Ok(target.strip_suffix(" (deleted)").unwrap_or(&target).ends_with("/net/tun"))
        }
        Err(error) => match unread("read link", path, error) {
            // Closed since the listing.
            Unread::Gone => Ok(false),
            failed @ Unread::Failed(_) => Err(failed),
        },
    }
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

    proptest! {
        #[test]
        fn any_fdinfo_never_panics(content in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = attached(&content);
        }
    }
}
