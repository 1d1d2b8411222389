//! Finds the foreign macvtap behind the number of a character device.
//!
//! The kernel gives each macvtap of the machine a number of its own, and says whose it is in the sysfs of the device's
//! namespace only. A descriptor of a macvtap does not tell its namespace, unlike one of a TAP.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{Namespace, inode_of, names, open_file};
use crate::host::Host;

/// Of a character device.
type Number = (u32, u32);

/// Named namespaces that are searched for one macvtap.
const MAX_NAMED: usize = 256;

/// `major:minor` and a newline.
const NUMBER_LIMIT: usize = 32;

/// What was found since this was made: a namespace is entered once.
#[derive(Debug, Default)]
pub(crate) struct Macvtaps {
    known: Mutex<HashMap<u64, HashMap<Number, String>>>,
}

impl Macvtaps {
    /// The name of the macvtap and the inode of its namespace: that of the process that holds it, else one with a name.
    ///
    /// `None` also where this process may not look (`CAP_SYS_ADMIN`, Linux 5.2).
    pub(crate) fn find(&self, host: &Host, pid: u32, number: Number) -> Option<(String, u64)> {
        if !is_macvtap(host, number) {
            return None;
        }
        let own = host.own_netns()?;
        let of_process = std::iter::once(host.process(pid).join("ns/net"));
        let named = std::iter::once_with(|| names(host)).flatten().take(MAX_NAMED);
        of_process.chain(named).find_map(|path| {
            let netns = inode_of(&path).filter(|netns| *netns != own)?;
            Some((self.of(netns, path, number)?, netns))
        })
    }

    fn of(&self, netns: u64, path: PathBuf, number: Number) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let macvtaps = known.entry(netns).or_insert_with(|| {
            macvtaps(&path).unwrap_or_else(|error| {
                tracing::debug!("the macvtaps of {}: {error}", path.display());
                HashMap::new()
            })
        });
        macvtaps.get(&number).cloned()
    }
}

/// Whether the driver of macvtap has this number. Anybody may have other devices under such a name.
fn is_macvtap(host: &Host, (major, _): Number) -> bool {
    let drivers = fs::read_to_string(host.proc().join("devices")).unwrap_or_default();
    let is_it = |line: &str| {
        line.split_once(' ').is_some_and(|(number, name)| name == "macvtap" && number.parse() == Ok(major))
    };
    drivers.lines().any(|line| is_it(line.trim()))
}

/// All of one namespace.
fn macvtaps(namespace: &Path) -> io::Result<HashMap<Number, String>> {
    Namespace { fd: open_file(namespace)? }.within(|| read(&sysfs()?))?
}

/// A sysfs of the namespace that this thread is in, mounted nowhere.
fn sysfs() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}

fn read(sysfs: impl AsFd) -> io::Result<HashMap<Number, String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let nodes = match openat(sysfs, "class/macvtap", flags, Mode::empty()) {
        // No macvtap has ever been made.
        Err(rustix::io::Errno::NOENT) => return Ok(HashMap::new()),
        nodes => nodes?,
    };
    let mut found = HashMap::new();
    for node in Dir::read_from(&nodes)? {
        let node = node?;
        let Ok(name) = node.file_name().to_str() else { continue };
        // One may go meanwhile.
        found.extend((!name.starts_with('.')).then(|| macvtap(&nodes, name)).flatten());
    }
    Ok(found)
}

fn macvtap(nodes: impl AsFd, node: &str) -> Option<(Number, String)> {
    let file = openat(&nodes, format!("{node}/dev"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; NUMBER_LIMIT];
    let length = rustix::io::read(&file, &mut text).ok()?;
    let (major, minor) = str::from_utf8(&text[..length]).ok()?.trim().split_once(':')?;
    let device = readlinkat(&nodes, format!("{node}/device"), Vec::new()).ok()?;
    let name = device.to_str().ok()?.rsplit('/').next()?.to_owned();
    Some(((major.parse().ok()?, minor.parse().ok()?), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_driver_has_macvtaps() {
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("devices"), "Character devices:\n  1 mem\n246 macvtap\n").unwrap();
        let host = Host::new(files.path(), files.path());
        assert!(is_macvtap(&host, (246, 3)) && !is_macvtap(&host, (1, 3)) && !is_macvtap(&host, (24, 0)));
        assert!(!is_macvtap(&Host::new("/nowhere", "/nowhere"), (246, 3)));
    }
}
