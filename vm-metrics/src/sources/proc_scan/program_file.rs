//! Which program a process runs, so that it is noticed when it runs another one.

use std::fs;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::procfs::executable;
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
