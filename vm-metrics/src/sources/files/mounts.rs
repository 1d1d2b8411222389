//! Finds FUSE mounts, whose user controls their answers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::host::Host;

/// The mounts of this process, read again when one comes or goes.
#[derive(Clone, Debug, Default)]
pub struct Mounts {
    table: Arc<Mutex<Option<MountTable>>>,
}

#[derive(Debug)]
struct MountTable {
    file: File,
    /// The users of FUSE mounts, by the number of the mount.
    users: HashMap<u64, u32>,
}

/// The mount that a file is on, without a question to its file system. `None` before Linux 5.8.
pub fn mount_of(file: &OwnedFd) -> io::Result<Option<u64>> {
    const MNT_ID: u32 = StatxFlags::MNT_ID.bits();
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = statx(file, "", flags, StatxFlags::MNT_ID)?;
    Ok((found.stx_mask & MNT_ID != 0).then_some(found.stx_mnt_id))
}

impl Mounts {
    /// The user of a FUSE mount. `None` where the mount is of another kind.
    pub fn fuse_user(&self, mount: u64) -> io::Result<Option<u32>> {
        let mut guard = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match guard.take() {
            Some(table) if !table.has_changed()? => table,
            Some(table) => table.read()?,
            None => {
                MountTable { file: File::open(Host::default().mounts())?, users: HashMap::new() }.read()?
            }
        };
        Ok(guard.insert(table).users.get(&mount).copied())
    }
}

impl MountTable {
    fn has_changed(&self) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = [PollFd::new(&self.file, PollFlags::PRI)];
        Ok(poll(&mut events, Some(&now))? > 0)
    }

    fn read(mut self) -> io::Result<Self> {
        let mut content = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut content)?;
        self.users = content.lines().filter_map(fuse_mount).collect();
        Ok(self)
    }
}

/// Number and user of a FUSE mount, from its line in `mountinfo`. Spaces in a line are escaped.
fn fuse_mount(line: &str) -> Option<(u64, u32)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let number = mount.split(' ').next()?.parse().ok()?;
    let mut words = file_system.split(' ');
    let kind = words.next()?;
    if !kind.starts_with("fuse") {
        return None;
    }
    let user = words.nth(1)?.split(',').find_map(|option| option.strip_prefix("user_id="))?;
    Some((number, user.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_fuse_mounts_have_a_user() {
        let line =
            "61 29 0:52 / /srv/a rw,nosuid,nodev shared:3 - fuse.sshfs a@b:/ rw,user_id=1000,group_id=1000";
        assert_eq!(fuse_mount(line), Some((61, 1000)));
        assert_eq!(fuse_mount(&line.replace(" shared:3", "")), Some((61, 1000)));
        assert_eq!(fuse_mount(&line.replace("fuse.sshfs", "tmpfs")), None);
        assert_eq!(fuse_mount(""), None);
    }

    #[test]
    fn procfs_is_no_fuse_mount() {
        let file = OwnedFd::from(File::open("/proc").unwrap());
        let Some(mount) = mount_of(&file).unwrap() else { return };
        let mounts = Mounts::default();
        for _ in 0..2 {
            assert_eq!(mounts.fuse_user(mount).unwrap(), None);
        }
    }
}
