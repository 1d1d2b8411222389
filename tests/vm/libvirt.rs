//! A real libvirtd with a paused domain, in namespaces of its own.
//!
//! It finds and leaves nothing on this machine. Its inspection of QEMU takes ten seconds.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::packages::ensure_debian;
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::snapshot::OneShot;

const UUID: &str = "01234567-89ab-4cde-8f01-2345678900aa";

/// Starts libvirtd with file systems that end with it. It needs Debian's user, which only the systemd package makes.
const START: &str = r#"
for dir in /run /var/lib /var/log /var/cache; do mount -t tmpfs none $dir; done
mkdir -p /etc/libvirt /run/libvirt
mount -t tmpfs none /etc/libvirt
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n' \
    > /etc/libvirt/qemu.conf
printf 'remember_owner = 0\nstdio_handler = "file"\n' >> /etc/libvirt/qemu.conf
for file in passwd group; do cp /etc/$file /run/$file; done
grep -q ^libvirt-qemu: /run/passwd || echo 'libvirt-qemu:x:64055:64055:::/bin/false' >> /run/passwd
grep -q ^libvirt-qemu: /run/group || echo 'libvirt-qemu:x:64055:' >> /run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done
truncate -s 128M /run/nvdimm
ip link set lo up
exec libvirtd
"#;

const DOMAIN: &str = r"
<domain type='qemu'>
  <name>lib web</name>
  <uuid>01234567-89ab-4cde-8f01-2345678900aa</uuid>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:owner><nova:project uuid='fedcba98'>demo</nova:project></nova:owner>
    </nova:instance>
  </metadata>
  <maxMemory slots='4' unit='MiB'>4096</maxMemory>
  <memory unit='MiB'>96</memory>
  <vcpu current='1'>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom'>
    <model>qemu64</model>
    <numa><cell id='0' cpus='0-1' memory='96' unit='MiB'/></numa>
  </cpu>
  <devices>
    <memory model='virtio-mem'>
      <target>
        <size unit='MiB'>512</size><node>0</node><block unit='MiB'>2</block><requested unit='MiB'>0</requested>
      </target>
    </memory>
    <memory model='nvdimm'>
      <source><path>/run/nvdimm</path></source><target><size unit='MiB'>128</size><node>0</node></target>
    </memory>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='ethernet'><model type='virtio'/><rom enabled='no'/></interface>
    <memballoon model='virtio'/>
  </devices>
</domain>
";

struct Libvirt {
    daemon: ChildProcess,
    dir: TempDir,
}

impl Libvirt {
    fn start() -> Self {
        let packages = ["libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86"];
        ensure_debian(&packages).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--propagation", "private", "sh", "-ec", START]);
        let daemon = ChildProcess::spawn("libvirtd", &mut command).unwrap();
        let mut libvirt = Self { daemon, dir: tempfile::tempdir().unwrap() };
        wait_until(SOON * 3, "libvirtd", || {
            libvirt.daemon.check_running()?;
            Ok(libvirt.virsh(&["list"]).status.success().then_some(()))
        })
        .unwrap();
        libvirt
    }

    fn create(&self) -> Domain<'_> {
        let file = self.dir.path().join("domain.xml");
        fs::write(&file, DOMAIN).unwrap();
        self.must(&["create", "--paused", file.to_str().unwrap()]);
        let pid = fs::read_to_string(self.records().join("lib web.pid")).unwrap();
        Domain { libvirt: self, pid: pid.trim().parse().unwrap() }
    }

    /// Returns libvirtd's `/run/libvirt/qemu`.
    fn records(&self) -> std::path::PathBuf {
        Path::new(&format!("/proc/{}/root/run/libvirt/qemu", self.daemon.pid())).to_owned()
    }

    fn must(&self, args: &[&str]) {
        let output = self.virsh(args);
        let check = || {
            ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        check().unwrap();
    }

    fn virsh(&self, args: &[&str]) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--net", "--target", &self.daemon.pid().to_string()]);
        nsenter.args(["virsh", "--connect", "qemu:///system"]).args(args).output().unwrap()
    }
}

/// A domain, which outlives libvirtd.
struct Domain<'l> {
    libvirt: &'l Libvirt,
    pid: u32,
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = kill_process(Pid::from_raw(self.pid.cast_signed()).unwrap(), Signal::KILL);
    }
}

#[test]
fn a_libvirt_domain_is_known_by_its_status() {
    let libvirt = Libvirt::start();
    let domain = libvirt.create();
    // The daemon follows no link to records, and `/proc/<pid>/root` is one. So it runs in libvirt's mount namespace.
    let config = "[sources.libvirt]\nenabled = true\n[readers.tap_ebpf]\nenabled = false\n";
    let shot = OneShot::with(config).among_the_mounts_of(libvirt.daemon.pid());
    let vm = shot.vm(domain.pid).unwrap();
    for (key, value) in [("instance_id", UUID), ("instance_name", "lib web"), ("project", "fedcba98")] {
        assert_eq!(vm[key], value, "{vm}");
    }
    assert_eq!((vm["allocated_vcpus"].as_u64(), vm["hypervisor"].as_str()), (Some(1), Some("qemu")));
    for key in ["allocated_memory_bytes", "actual_memory_bytes"] {
        assert_eq!(vm[key].as_u64(), Some(96 << 20), "{key}");
    }
    assert_eq!(vm["nics"].as_array().unwrap().len(), 1, "{vm}");
    assert_eq!(vm["state"], "paused");
    assert!(shot.health("libvirt").contains("healthy, 1 VM"), "{}", shot.health("libvirt"));

    // The command line gives the same values.
    let config = "[sources.libvirt]\nenabled = false\n[readers.tap_ebpf]\nenabled = false\n";
    assert_eq!(
        OneShot::with(config).vm(domain.pid).unwrap()["allocated_memory_bytes"].as_u64(),
        Some(96 << 20)
    );

    domain.libvirt.must(&["setvcpus", UUID, "2", "--live"]);
    assert_eq!(shot.vm(domain.pid).unwrap()["allocated_vcpus"], 2);
    domain.libvirt.must(&["destroy", UUID]);
    assert_eq!(shot.vm(domain.pid), None);
}
