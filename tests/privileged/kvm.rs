//! Discovers real KVM VMs of an unknown program.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;
use vm_metrics_testkit::child::copy_program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::kvm::{Guest, KvmSpec, unavailable};
use vm_metrics_testkit::metrics_text::{Metrics, Sample};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::service;
use vm_metrics_testkit::skip::{skip, skip_part};
use vm_metrics_testkit::vm_process::{self, StandIn, StandInSpec, Traffic};
use vm_metrics_testkit::wait::SOON;

use crate::isolation::isolated;

const TAP: &str = "vmkvm0";

/// The VMM process of the other tests, see `vm_process`.
#[test]
fn stand_in_vm() {
    vm_process::run_if_asked().unwrap();
}

struct Scene {
    dir: TempDir,
    _namespace: NetNs,
}

impl Scene {
    fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, _namespace: namespace }
    }

    /// Starts a VMM under this file name with a TAP, traffic and a KVM VM.
    fn vmm(&self, name: &str, tap: &str, vcpus: u32, guest: Guest) -> StandIn {
        let program = self.dir.path().join(name);
        copy_program(&env::current_exe().unwrap(), &program).unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "kvm::stand_in_vm", "--nocapture"]);
        command.envs([KvmSpec { vcpus, guest }.variable().unwrap()]);
        let traffic = Traffic { packets_per_second: 100, frame_bytes: 100 };
        let spec = StandInSpec {
            tap: tap.to_owned(),
            sends: traffic,
            receives: traffic,
            memory_bytes: 1 << 20,
            threads: Vec::new(),
        };
        StandIn::start(&spec, command).unwrap()
    }

    /// Starts a daemon of root, then one of a user with the capabilities of the unit.
    fn daemons(&self) -> impl Iterator<Item = Daemon> {
        let binary = self.dir.path().join("vm-metrics");
        copy_program(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &binary).unwrap();
        let capable = service::command(&binary, &service::capabilities());
        let config = self.dir.path().join("config.toml");
        fs::write(&config, "interval = \"200ms\"\n[readers.tap_ebpf]\npin = false\n").unwrap();
        let start = move |mut command: Command| {
            command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
            let daemon = Daemon::start_command(command).unwrap();
            daemon.wait_until_ready().unwrap();
            daemon
        };
        // The daemons run one after the other.
        vec![Command::new(&binary), capable].into_iter().map(start)
    }
}

/// Runs a test if KVM is available.
fn with_kvm(test: &str, body: impl FnOnce(Scene)) {
    match unavailable() {
        Some(reason) => skip(&reason),
        None => isolated(test, || body(Scene::new())),
    }
}

fn vms(metrics: &Metrics) -> Vec<&Sample> {
    metrics.samples("vm_info").collect()
}

#[test]
fn a_vm_of_any_program_is_counted() {
    with_kvm("kvm::a_vm_of_any_program_is_counted", |scene| {
        let vmm = scene.vmm("vmm-of-ours", TAP, 3, Guest::Loops);
        for daemon in scene.daemons() {
            let pid = vmm.pid().to_string();
            let id = format!("vmm-of-ours-{pid}");
            let of = |name: &str, metrics: &Metrics| metrics.value(name, &[("instance_id", &id)]);
            let cpu = |metrics: &Metrics| of("vm_cpu_seconds_total", metrics);
            let before = daemon.wait_for(SOON, "its CPU time", cpu).unwrap();
            let later = |metrics: &Metrics| {
                let is_counted = of("vm_network_tx_bytes_total", metrics) > Some(0.0)
                    && of("vm_network_rx_bytes_total", metrics) > Some(0.0);
                (is_counted && cpu(metrics) > Some(before + 0.2)).then(|| metrics.clone())
            };
            let metrics = daemon.wait_for(SOON, "traffic and CPU time", later).unwrap();
            assert_eq!(vms(&metrics).len(), 1);
            let info = [("hypervisor", "vmm-of-ours"), ("pid", pid.as_str()), ("instance_name", &id)];
            assert_eq!(metrics.value("vm_info", &info), Some(1.0), "{:?}", vms(&metrics));
            assert_eq!(of("vm_allocated_vcpus", &metrics), Some(3.0));
            assert!(of("vm_memory_rss_bytes", &metrics) > Some(1e6));
            let device = [("device", TAP), ("source", "ebpf")];
            assert_eq!(metrics.value("vm_network_source_info", &device), Some(1.0));
            // The daemon knows neither the vCPU of a thread nor the guest's memory size.
            let unknown = ["vm_allocated_memory_bytes", "vm_vcpu_seconds_total"];
            assert!(unknown.iter().all(|name| metrics.samples(name).next().is_none()));
        }
    });
}

#[test]
fn a_halted_vm_is_found() {
    with_kvm("kvm::a_halted_vm_is_found", |scene| {
        let _vmm = scene.vmm("vmm-of-ours", TAP, 1, Guest::Halts);
        let found = |metrics: &Metrics| (vms(metrics).len() == 1).then_some(());
        scene.daemons().next().unwrap().wait_for(SOON, "the VM", found).unwrap();
    });
}

#[test]
fn a_prober_is_no_vm() {
    with_kvm("kvm::a_prober_is_no_vm", |scene| {
        let _prober = scene.vmm("prober", "vmkvm1", 1, Guest::NeverRuns);
        let daemon = scene.daemons().next().unwrap();
        // The daemon finds this VM after it inspected the other process for long enough.
        let _vmm = scene.vmm("vmm-of-ours", TAP, 1, Guest::Halts);
        let found = |metrics: &Metrics| (!vms(metrics).is_empty()).then(|| metrics.clone());
        let metrics = daemon.wait_for(SOON, "a VM", found).unwrap();
        let names: Vec<_> = vms(&metrics).iter().map(|vm| vm.label("hypervisor")).collect();
        assert_eq!(names, [Some("vmm-of-ours")]);
    });
}

#[test]
fn a_known_hypervisor_is_one_vm() {
    with_kvm("kvm::a_known_hypervisor_is_one_vm", |scene| {
        let _qemu = scene.vmm("qemu-system-x86_64", "vmkvm1", 2, Guest::Halts);
        let daemon = scene.daemons().next().unwrap();
        let _vmm = scene.vmm("vmm-of-ours", TAP, 1, Guest::Halts);
        let both = |metrics: &Metrics| (vms(metrics).len() >= 2).then(|| metrics.clone());
        let metrics = daemon.wait_for(SOON, "both VMs", both).unwrap();
        let mut names: Vec<_> = vms(&metrics).iter().filter_map(|vm| vm.label("hypervisor")).collect();
        names.sort_unstable();
        assert_eq!(names, ["qemu", "vmm-of-ours"]);
    });
}

#[test]
fn a_scope_gives_the_id() {
    with_kvm("kvm::a_scope_gives_the_id", |scene| {
        let scope = match Scope::new(scene.dir.path()) {
            Ok(scope) => scope,
            Err(reason) => return skip_part("the scope", &reason),
        };
        let vmm = scene.vmm("vmm-of-ours", TAP, 1, Guest::Halts);
        scope.take(vmm.pid());
        let daemon = scene.daemons().next().unwrap();
        let id = [("instance_id", "kvm-test-vm"), ("hypervisor", "vmm-of-ours")];
        daemon.wait_for(SOON, "the VM of the scope", |metrics| metrics.value("vm_info", &id)).unwrap();
        drop(vmm);
    });
}

/// A control group like systemd's. It goes when it is empty.
struct Scope(PathBuf);

impl Scope {
    fn new(dir: &Path) -> Result<Self, String> {
        let root = dir.join("cgroup");
        fs::create_dir(&root).unwrap();
        mount("cgroup2", &root, "cgroup2", MountFlags::empty(), None)
            .map_err(|error| format!("no control groups: {error}"))?;
        let scope = root.join("kvm-test-vm.scope");
        fs::create_dir(&scope).map_err(|error| format!("no control group can be made: {error}"))?;
        Ok(Self(scope))
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}
