//! Compares parsed QEMU command lines with the answers of QEMU's monitor.

mod table;

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::firecracker;
use vm_metrics_testkit::packages::ensure_debian;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::{SOON, wait_until};

use self::table::{ARM, BOARDS, FILES, PC};
use crate::qmp::Client;
use crate::snapshot::OneShot;

/// Number of QEMUs that run at a time.
const AT_A_TIME: usize = 16;

/// This configuration uses neither monitors nor devices.
const BY_COMMAND_LINE: &str = "[sources.qemu_qmp]\nenabled = false\n[sources.libvirt]\nenabled = false\n[readers.tap_ebpf]\nenabled = false\n";

const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// A paused QEMU and its options.
struct PausedQemu {
    line: String,
    process: ChildProcess,
    monitor: PathBuf,
}

/// Sizes and names of a VM: vCPUs, bytes of memory, name, uuid.
#[derive(Debug, PartialEq, Eq)]
struct Sizes {
    vcpus: u64,
    memory: u64,
    name: Option<String>,
    uuid: Option<String>,
}

impl PausedQemu {
    fn start(dir: &Path, at: usize, architecture: &str, options: &str) -> Self {
        let monitor = dir.join(format!("{at}.sock"));
        let program = format!("qemu-system-{architecture}");
        let mut command = Command::new(&program);
        // Other tests may run at the same time.
        let uuid = format!("6f1b3a7e-{at:04x}-4000-8000-{:012x}", std::process::id());
        for word in options.split_whitespace() {
            command.arg(word.replace("{dir}", dir.to_str().unwrap()).replace("{uuid}", &uuid));
        }
        command.args(["-S", "-display", "none", "-qmp"]);
        command.arg(format!("unix:{},server=on,wait=off", monitor.display()));
        let process = ChildProcess::spawn(&program, &mut command).unwrap();
        Self { line: format!("{program} {options}"), process, monitor }
    }

    fn client(&mut self) -> Client {
        let Self { line, process, monitor } = self;
        wait_until(SOON, line, || {
            process.check_running()?;
            Ok(UnixStream::connect(&*monitor).is_ok().then_some(()))
        })
        .unwrap();
        Client::connect(monitor)
    }

    fn itself(&mut self) -> Sizes {
        let mut client = self.client();
        let mut ask = |question| client.execute(question, json!({}));
        let size = |value: &Value| value.as_u64().unwrap_or(0);
        let summary = ask("query-memory-size-summary");
        let devices = ask("query-memory-devices");
        let storage = devices.as_array().unwrap().iter();
        let storage =
            storage.filter(|device| matches!(device["type"].as_str(), Some("nvdimm" | "virtio-pmem")));
        let storage: u64 = storage.map(|device| size(&device["data"]["size"])).sum();
        let uuid = ask("query-uuid")["UUID"].as_str().unwrap().to_owned();
        Sizes {
            vcpus: ask("query-cpus-fast").as_array().unwrap().len() as u64,
            memory: size(&summary["base-memory"]) + size(&summary["plugged-memory"]) - storage,
            name: ask("query-name")["name"].as_str().map(str::to_owned),
            uuid: Some(uuid).filter(|uuid| uuid != NO_UUID),
        }
    }
}

/// Passes each VM of the daemon to `judge`, with its QEMU's own values.
fn judged(cases: &[(&str, &str)], mut judge: impl FnMut(&str, Option<&Value>, Sizes)) {
    ensure_debian(&["qemu-system-x86", "qemu-system-arm"]).unwrap();
    let dir: TempDir = tempfile::tempdir().unwrap();
    for (name, content) in FILES {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let shot = OneShot::with(BY_COMMAND_LINE);
    for cases in cases.chunks(AT_A_TIME) {
        let mut paused: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(at, (architecture, options))| PausedQemu::start(dir.path(), at, architecture, options))
            .collect();
        let known: Vec<_> = paused.iter_mut().map(PausedQemu::itself).collect();
        let vms: HashMap<_, _> =
            shot.vms().into_iter().map(|vm| (vm["hypervisor_pid"].as_u64(), vm)).collect();
        for (qemu, known) in paused.iter().zip(known) {
            judge(&qemu.line, vms.get(&Some(qemu.process.pid().into())), known);
        }
        for qemu in &paused {
            let _ = fs::remove_file(&qemu.monitor);
        }
    }
}

#[test]
fn command_lines_match_the_monitor() {
    let pc = PC.iter().map(|options| ("x86_64", *options));
    let cases: Vec<_> = pc.chain(ARM.iter().copied()).collect();
    let mut wrong = Vec::new();
    judged(&cases, |line, vm, known| {
        let text = |key: &str| vm.and_then(|vm| vm[key].as_str()).map(str::to_owned);
        let size = |key: &str| vm.and_then(|vm| vm[key].as_u64()).unwrap_or(0);
        let read = Sizes {
            vcpus: size("allocated_vcpus"),
            memory: size("allocated_memory_bytes"),
            name: text("instance_name").filter(|_| known.name.is_some()),
            uuid: text("instance_id").filter(|_| known.uuid.is_some()),
        };
        if read != known {
            wrong.push(format!("{line}\n    read {read:?}\n    QEMU {known:?}"));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Plugs a vCPU into a running QEMU, and returns the daemon's values before and after. The daemon knows only its
/// command line.
fn plugged_in(options: &str) -> [Option<u64>; 2] {
    ensure_debian(&["qemu-system-x86"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut qemu = PausedQemu::start(dir.path(), 0, "x86_64", options);
    let mut client = qemu.client();
    let shot = OneShot::with(BY_COMMAND_LINE);
    let vcpus = || shot.vm(qemu.process.pid()).unwrap()["allocated_vcpus"].as_u64();
    let before = vcpus();
    let slots = client.execute("query-hotpluggable-cpus", json!({}));
    let slot = slots.as_array().unwrap().iter().find(|slot| slot.get("qom-path").is_none()).unwrap();
    let mut vcpu = slot["props"].clone();
    vcpu["driver"] = slot["type"].clone();
    client.execute("device_add", vcpu);
    [before, vcpus()]
}

#[test]
fn named_threads_reveal_plugged_vcpus() {
    let options = "-name threads,debug-threads=on -m 16 -smp 1,maxcpus=3";
    assert_eq!(plugged_in(options), [Some(1), Some(2)]);
}

#[test]
fn kvm_reveals_plugged_vcpus() {
    if let Err(error) = firecracker::kvm() {
        return skip(&format!("{error:#}"));
    }
    let options = "-accel kvm -m 16 -smp 1,maxcpus=3";
    assert_eq!(plugged_in(options), [Some(1), Some(2)]);
}

#[test]
fn boards_have_no_sizes_by_default() {
    judged(BOARDS, |line, vm, known| {
        let vm = vm.unwrap_or_else(|| panic!("{line} is not listed"));
        assert!(vm["allocated_vcpus"].is_null() && vm["allocated_memory_bytes"].is_null(), "{line}: {vm}");
        assert!((known.vcpus, known.memory) != (1, 128 << 20), "{line} shows nothing");
    });
}

#[test]
fn a_remote_device_process_is_no_vm() {
    judged(&[("x86_64", "-M x-remote")], |line, vm, known| {
        assert_eq!((vm, known.vcpus), (None, 0), "{line}");
    });
}
