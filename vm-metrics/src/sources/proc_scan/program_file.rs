//! Which program a process runs, so that it is noticed when it runs another one.

use std::fs;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::model::Hypervisor;
use crate::procfs::{Stat, executable};
use crate::sources::process::ProcessDir;

/// The file that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// The numbers of its device and its inode; `None` where the file cannot be asked.
    file: Option<(u32, u32, u64)>,
    name: String,
}

impl ProgramFile {
    /// `None` where this process may not know it.
    pub fn of(process: &ProcessDir) -> Option<Self> {
        let path = process.path("exe");
        let target = fs::read_link(&path).ok()?;
        let name = executable::file_name(&target.to_string_lossy()).to_owned();
        // A tenant's file system is not asked.
        let stat = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
        let file = stat.ok().map(|stat| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino));
        Some(Self { file, name })
    }

    pub fn is_hypervisor(&self) -> bool {
        executable::hypervisor(&self.name).is_some()
    }

    /// Whether a VM of this program is another program now. A newer file of the same hypervisor is none.
    pub fn was_left_for(&self, now: &Self) -> bool {
        let same_file = self.file.is_some() && self.file == now.file;
        let kind = |program: &Self| executable::hypervisor(&program.name);
        !same_file && self.name != now.name && (kind(self) != kind(now) || kind(now).is_none())
    }
}

/// A child that QEMU has forked and that has not yet become the helper it is meant to be: in all but its pid
/// its parent.
pub fn is_fork(process: &ProcessDir, stat: &Stat, hypervisor: Hypervisor, argv: &[String]) -> bool {
    let parent = process.other(stat.ppid);
    let same_program = |parent: &ProcessDir| {
        parent
            .executable()
            .is_ok_and(|name| name.as_deref().and_then(executable::hypervisor) == Some(hypervisor))
    };
    // A copy that has started the real program is no VM, and must not hide one.
    let same_file = ProgramFile::of(&parent) == ProgramFile::of(process);
    same_file && same_program(&parent) && parent.argv().is_ok_and(|parent| parent == argv)
}

/// `qemu -daemonize` goes on in a grandchild, in a new session whose leader, the child, has left at once. The
/// first process has the same arguments and waits for the grandchild to be ready; the session it was started
/// in is alive, or it leads it itself.
pub fn is_launcher(process: &ProcessDir, stat: &Stat) -> bool {
    process.other(stat.session).stat().is_ok_and(|leader| !leader.is_dead())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(inode: Option<u64>, name: &str) -> ProgramFile {
        ProgramFile { file: inode.map(|inode| (8, 1, inode)), name: name.to_owned() }
    }

    #[test]
    fn an_upgraded_file_is_the_same_program() {
        let qemu = program(Some(1), "qemu-system-x86_64");
        for now in [qemu.clone(), program(Some(2), "qemu-system-x86_64"), program(None, "qemu-kvm")] {
            assert!(!qemu.was_left_for(&now), "{now:?}");
        }
        for now in [program(Some(2), "sh"), program(None, "firecracker")] {
            assert!(qemu.was_left_for(&now), "{now:?}");
        }
        assert!(!program(Some(1), "vmm").was_left_for(&program(Some(1), "renamed")));
    }
}
