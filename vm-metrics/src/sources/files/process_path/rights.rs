//! Gives a thread the rights of another user's process.
//!
//! A daemon of root takes on the user and the groups, gives up all capabilities, and leaves the checks to the kernel. A
//! daemon of an ordinary user may not: it keeps the two capabilities that open files of others, and checks by itself.

use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::{self, setfsgid, setfsuid};
use rustix::fs::{Stat, getxattr};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, capabilities, set_capabilities, set_thread_groups};

use super::walk::WalkRules;
use crate::procfs::Credentials;
use crate::sources::files;

/// The user id of root.
const ROOT: u32 = 0;

/// Not an id: asked for, it changes nothing.
const NO_ID: u32 = u32::MAX;

/// With these the kernel does not look at owner and mode of a file.
const OPENS_ALL: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);

/// The rights of a process, which this thread has taken on.
#[derive(Debug)]
pub struct Rights {
    credentials: Credentials,
    /// The kernel checks them, for the thread has this user and no capability.
    by_kernel: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Access {
    Read = 4,
    Write = 2,
    Search = 1,
}

impl Rights {
    /// There is no way back: the thread is to end with its work.
    pub fn take_on(credentials: Credentials) -> io::Result<Self> {
        // A process of root may open all that the daemon may.
        let by_kernel = credentials.fs_uid != ROOT && become_user(&credentials);
        keep_capabilities(if by_kernel { CapabilitySet::empty() } else { OPENS_ALL })?;
        Ok(Self { credentials, by_kernel })
    }

    /// Whether a file or a process of this user may be the process's own.
    pub fn may_own(&self, uid: u32) -> bool {
        let Credentials { real_uid, effective_uid, fs_uid, .. } = self.credentials;
        [ROOT, real_uid, effective_uid, fs_uid].contains(&uid)
    }

    /// Whether the process may do this with the file, by its owner and mode.
    pub fn check(&self, file: &OwnedFd, stat: &Stat, access: Access) -> io::Result<()> {
        let Credentials { fs_uid, fs_gid, groups, .. } = &self.credentials;
        if self.by_kernel || *fs_uid == ROOT {
            return Ok(());
        }
        let class = match () {
            () if stat.st_uid == *fs_uid => 6,
            // An access control list may deny what the mode allows.
            () if has_list(file) => return Err(Errno::ACCESS.into()),
            () if stat.st_gid == *fs_gid || groups.contains(&stat.st_gid) => 3,
            () => 0,
        };
        if stat.st_mode >> class & access as u32 == 0 { Err(Errno::ACCESS.into()) } else { Ok(()) }
    }
}

impl WalkRules for Rights {
    fn enter(&mut self, directory: &OwnedFd, stat: &Stat) -> io::Result<()> {
        self.check(directory, stat, Access::Search)
    }

    /// The kernel's rule for directories like `/tmp`: links of other users are not followed.
    fn follow(&mut self, directory: &Stat, link: &Stat) -> io::Result<()> {
        const STICKY_AND_OPEN: u32 = 0o1002;
        let is_open = directory.st_mode & STICKY_AND_OPEN == STICKY_AND_OPEN;
        if is_open && ![self.credentials.fs_uid, directory.st_uid].contains(&link.st_uid) {
            return Err(Errno::ACCESS.into());
        }
        Ok(())
    }
}

/// Whether this thread opens files as this user from now on. The other threads stay as they are.
fn become_user(credentials: &Credentials) -> bool {
    let Credentials { fs_uid, fs_gid, groups, .. } = credentials;
    if [fs_uid, fs_gid].contains(&&NO_ID) {
        return false;
    }
    let groups: Vec<_> = groups.iter().filter(|gid| **gid != NO_ID).map(|gid| Gid::from_raw(*gid)).collect();
    if set_thread_groups(&groups).is_err() {
        return false;
    }
    setfsgid(unistd::Gid::from_raw(*fs_gid));
    setfsuid(unistd::Uid::from_raw(*fs_uid));
    // These calls return the former id, and no error.
    setfsgid(unistd::Gid::from_raw(NO_ID)).as_raw() == *fs_gid
        && setfsuid(unistd::Uid::from_raw(NO_ID)).as_raw() == *fs_uid
}

/// Gives up all other capabilities, also for later.
fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    let sets = CapabilitySets {
        effective: effective & kept,
        permitted: permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Of a longer list it is enough to know that it is there.
const MAX_LIST_BYTES: usize = 64;

fn has_list(file: &OwnedFd) -> bool {
    match getxattr(files::path_of(file), "system.posix_acl_access", &mut [0_u8; MAX_LIST_BYTES][..]) {
        Ok(_) => true,
        Err(Errno::NODATA | Errno::NOTSUP) => false,
        // Unknown counts as present.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{XattrFlags, fstat, setxattr};
    use rustix::process::{getgid, getuid};

    use super::*;

    /// A process of another user, whom the daemon checks by itself.
    fn stranger(groups: Vec<u32>) -> Rights {
        let (uid, gid) = (getuid().as_raw() + 1000, getgid().as_raw() + 1000);
        let ids = Credentials { real_uid: uid, effective_uid: uid, fs_uid: uid, fs_gid: gid, groups };
        Rights { credentials: ids, by_kernel: false }
    }

    #[test]
    fn owner_group_and_others_have_their_bits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let may = |rights: &Rights, mode: u32, access: Access| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let file = OwnedFd::from(File::open(&path).unwrap());
            rights.check(&file, &fstat(&file).unwrap(), access).is_ok()
        };
        let (other, member) = (stranger(Vec::new()), stranger(vec![getgid().as_raw()]));
        for (mode, of_other, of_member) in [(0o604, true, false), (0o640, false, true), (0o600, false, false)]
        {
            assert_eq!(may(&other, mode, Access::Read), of_other, "{mode:o}");
            assert_eq!(may(&member, mode, Access::Read), of_member, "{mode:o}");
        }
        assert!(may(&other, 0o602, Access::Write) && !may(&other, 0o605, Access::Write));
        assert!(may(&other, 0o601, Access::Search) && !may(&other, 0o606, Access::Search));
    }

    /// Its entries are users, groups and a mask, each with a tag and bits, little-endian.
    #[test]
    fn a_list_of_users_is_respected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let user = getuid().as_raw() + 1000;
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, bits, id) in
            [(1_u16, 6_u16, NO_ID), (2, 0, user), (4, 4, NO_ID), (16, 4, NO_ID), (32, 4, NO_ID)]
        {
            list.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
            list.extend(id.to_le_bytes());
        }
        match setxattr(&path, "system.posix_acl_access", &list, XattrFlags::empty()) {
            Err(Errno::NOTSUP) => return,
            set => set.unwrap(),
        }
        let file = OwnedFd::from(File::open(&path).unwrap());
        let stat = fstat(&file).unwrap();
        assert_eq!(stat.st_mode & 0o777, 0o644, "the mode alone says yes");
        stranger(Vec::new()).check(&file, &stat, Access::Read).unwrap_err();
    }
}
