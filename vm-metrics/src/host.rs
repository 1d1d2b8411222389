//! Where the kernel's files are. The only file that spells `/proc` or `/sys`; on a fixture host the roots are elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    proc: PathBuf,
    sys: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self::new("/proc", "/sys")
    }
}

impl Host {
    pub fn new(proc: impl Into<PathBuf>, sys: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), sys: sys.into() }
    }

    /// The root of procfs.
    pub fn proc(&self) -> &Path {
        &self.proc
    }

    /// The root of sysfs.
    pub fn sys(&self) -> &Path {
        &self.sys
    }

    /// `/proc/<pid>`
    pub fn process(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// `/sys/class/net`
    pub fn net_devices(&self) -> PathBuf {
        self.sys.join("class/net")
    }

    /// The names in `/sys/class/net`
    pub fn net_device_names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.net_devices())?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// `/sys/class/net/<name>`
    pub fn net_device(&self, name: &str) -> PathBuf {
        self.net_devices().join(name)
    }

    /// `/sys/fs/bpf`, where a bpffs is mounted by custom
    pub fn bpf_fs(&self) -> PathBuf {
        self.sys.join("fs/bpf")
    }

    /// `/sys/kernel/btf/vmlinux`
    pub fn btf(&self) -> PathBuf {
        self.sys.join("kernel/btf/vmlinux")
    }
}
