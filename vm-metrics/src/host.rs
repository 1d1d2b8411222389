//! Locates the kernel's files, and alone spells `/proc` and `/sys`.
//!
//! On a fixture host the roots are other directories.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, PROC_SUPER_MAGIC, statfs};

use crate::procfs::parse_net_dev;

/// Magic number of sysfs (`linux/magic.h`).
const SYSFS_MAGIC: FsWord = 0x6265_6572;

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

    /// Whether the roots are procfs and sysfs of this kernel, at the usual paths or mounted elsewhere, as in a container.
    /// The roots of a fixture host are plain files.
    pub fn is_this_kernel(&self) -> bool {
        let is = |root: &Path, magic| statfs(root).is_ok_and(|at| at.f_type == magic);
        *self == Self::default() || (is(&self.proc, PROC_SUPER_MAGIC) && is(&self.sys, SYSFS_MAGIC))
    }

    /// The root of procfs.
    pub fn proc(&self) -> &Path {
        &self.proc
    }

    /// The inode of the network namespace that this thread is in; `None` on a fixture host.
    pub fn own_netns(&self) -> Option<u64> {
        fs::metadata(self.proc.join("thread-self/ns/net")).ok().map(|namespace| namespace.ino())
    }

    /// Where network namespaces have names by custom (`ip netns`).
    pub fn named_namespaces(&self) -> &Path {
        Path::new("/run/netns")
    }

    /// The root of sysfs.
    pub fn sys(&self) -> &Path {
        &self.sys
    }

    /// `/proc/self`
    pub fn process_itself(&self) -> PathBuf {
        self.proc.join("self")
    }

    /// The mounts that this process sees
    pub fn mounts(&self) -> PathBuf {
        self.process_itself().join("mountinfo")
    }

    /// `/proc/<pid>`
    pub fn process(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// The names of the devices in the network namespace that this thread is in, as they stand in `/proc`.
    pub fn net_device_names(&self) -> io::Result<Vec<String>> {
        let content = fs::read(self.proc.join("thread-self/net/dev"))?;
        let devices =
            parse_net_dev(&content).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(devices.into_keys().collect())
    }

    /// `/sys/class/net`
    pub fn net_devices(&self) -> PathBuf {
        self.sys.join("class/net")
    }

    /// `/sys/class/net/<name>`
    pub fn net_device(&self, name: &str) -> PathBuf {
        self.net_devices().join(name)
    }

    /// `/sys/class/macvtap/<node>`, with the macvtap devices of the network namespace that this sysfs shows
    pub fn macvtap(&self, node: &str) -> PathBuf {
        self.macvtaps().join(node)
    }

    /// `/sys/class/macvtap`
    pub fn macvtaps(&self) -> PathBuf {
        self.sys.join("class/macvtap")
    }

    /// `/sys/class/misc/kvm`, where this kernel runs VMs
    pub fn kvm(&self) -> PathBuf {
        self.sys.join("class/misc/kvm")
    }

    /// `/sys/bus/pci/devices/<address>`
    pub fn pci_device(&self, address: &str) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address)
    }

    /// `/sys/kernel/iommu_groups/<group>/devices`, with the PCI devices that are only given away together
    pub fn iommu_group(&self, group: &str) -> PathBuf {
        self.sys.join("kernel/iommu_groups").join(group).join("devices")
    }

    /// The inode of the device's directory, which the kernel assigns once. So it distinguishes the device from earlier and
    /// later ones of the same name. `None` if there is no such device.
    pub fn device_id(&self, name: &str) -> Option<u64> {
        fs::metadata(self.net_device(name)).ok().map(|directory| directory.ino())
    }

    /// The inodes of all devices.
    pub fn device_ids(&self) -> io::Result<HashSet<u64>> {
        let devices = fs::read_dir(self.net_devices())?;
        // By the path, because they are links; a device may be deleted meanwhile.
        Ok(devices.filter_map(|device| Some(fs::metadata(device.ok()?.path()).ok()?.ino())).collect())
    }

    /// Time of the boot in seconds of Unix time; `None` if the host does not publish it.
    pub fn boot_time(&self) -> Option<u64> {
        let stat = fs::read_to_string(self.proc.join("stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
    }

    /// The number of threads of all processes; `None` if the host does not publish it.
    pub fn threads(&self) -> Option<u64> {
        let load = fs::read_to_string(self.proc.join("loadavg")).ok()?;
        load.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
    }

    /// `/sys/devices/system/cpu/possible`
    pub fn possible_cpus(&self) -> PathBuf {
        self.sys.join("devices/system/cpu/possible")
    }

    /// The id of this boot; `None` if the host does not publish it.
    pub fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string(self.proc.join("sys/kernel/random/boot_id")).ok()?;
        Some(id.trim().to_owned())
    }

    /// `/sys/fs/bpf`, where a bpffs is mounted by custom
    pub fn bpf_fs(&self) -> PathBuf {
        self.sys.join("fs/bpf")
    }

    /// `/sys/fs/cgroup`
    pub fn cgroups(&self) -> PathBuf {
        self.sys.join("fs/cgroup")
    }

    /// `/sys/kernel/btf/vmlinux`
    pub fn btf(&self) -> PathBuf {
        self.sys.join("kernel/btf/vmlinux")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_those_of_loadavg() {
        let files = tempfile::tempdir().expect("a directory");
        let host = Host::new(files.path(), "/sys");
        for (content, threads) in [("0.10 0.20 0.30 2/324 29201\n", Some(324)), ("0.10 0.20\n", None)] {
            fs::write(files.path().join("loadavg"), content).expect("a file");
            assert_eq!(host.threads(), threads);
        }
    }

    #[test]
    fn a_host_made_of_files_is_another_kernel() {
        let files = tempfile::tempdir().expect("a directory");
        assert!(Host::default().is_this_kernel());
        assert!(Host::new("/proc/../proc", "/sys/").is_this_kernel());
        assert!(!Host::new("/proc", files.path()).is_this_kernel());
        assert!(!Host::new(files.path(), "/sys").is_this_kernel());
        assert!(!Host::new("/nowhere", "/nowhere").is_this_kernel());
    }
}
