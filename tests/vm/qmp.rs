//! Reads plugged devices over a real QEMU's monitor.
//!
//! The QEMU is paused without a guest, which does not matter for its devices.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::packages::ensure_debian;
use vm_metrics_testkit::wait::{SOON, scaled, wait_until};

use crate::snapshot::OneShot;

const UUID: &str = "6f1b3a7e-0000-4000-8000-00000000007e";
const MIB: u64 = 1 << 20;

/// A QEMU with two monitors, one of them ours.
struct Qemu {
    process: ChildProcess,
    dir: TempDir,
}

impl Qemu {
    fn start() -> Self {
        ensure_debian(&["qemu-system-x86"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let monitor = |name: &str| format!("unix:{}/{name}.sock,server=on,wait=off", dir.path().display());
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-name",
            "guest=qmp-web",
            "-uuid",
            UUID,
            "-M",
            "q35,nvdimm=on",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(["-accel", "tcg", "-cpu", "qemu64", "-display", "none", "-bios", "qboot.rom", "-S"]);
        command.args([
            "-smp",
            "1,maxcpus=2",
            "-m",
            "128M,slots=4,maxmem=1G",
            "-device",
            "virtio-balloon-pci",
        ]);
        command.args(["-qmp", &monitor("ours"), "-qmp", &monitor("theirs")]);
        let process = ChildProcess::spawn("QEMU", &mut command).unwrap();
        let mut qemu = Self { process, dir };
        wait_until(SOON, "QEMU's monitors", || {
            qemu.process.check_running()?;
            Ok(UnixStream::connect(qemu.socket("theirs")).is_ok().then_some(()))
        })
        .unwrap();
        qemu
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    fn look(&self) -> OneShot {
        let socket = self.socket("ours");
        OneShot::with(&format!(
            "[sources.qemu_qmp]\nsockets = [{socket:?}]\n[readers.tap_ebpf]\nenabled = false\n"
        ))
    }
}

/// A client that occupies a monitor.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(scaled(SOON))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.line().get("QMP").is_some());
        client.execute("qmp_capabilities", json!({}));
        client
    }

    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let question = json!({"execute": command, "arguments": arguments});
        writeln!(self.0.get_mut(), "{question}").unwrap();
        loop {
            let mut line = self.line();
            assert!(line.get("error").is_none(), "{command}: {line}");
            if let Some(answer) = line.get_mut("return") {
                return answer.take();
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

#[test]
fn qmp_reveals_plugged_devices() {
    let qemu = Qemu::start();
    let shot = qemu.look();
    let sizes = |vm: &Value| {
        let size = |key: &str| vm[key].as_u64().unwrap();
        (size("allocated_vcpus"), size("allocated_memory_bytes") / MIB, size("actual_memory_bytes") / MIB)
    };
    let vm = shot.vm(qemu.process.pid()).unwrap();
    assert_eq!((vm["instance_id"].as_str(), vm["instance_name"].as_str()), (Some(UUID), Some("qmp-web")));
    assert_eq!(sizes(&vm), (1, 128, 128));
    assert_eq!(vm["state"], "not-started");

    let mut client = Client::connect(&qemu.socket("theirs"));
    for (command, state) in [("cont", "running"), ("stop", "paused")] {
        client.execute(command, json!({}));
        assert_eq!(shot.vm(qemu.process.pid()).unwrap()["state"], state);
    }
    let cpus = client.execute("query-hotpluggable-cpus", json!({}));
    let free = cpus.as_array().unwrap().iter().find(|cpu| cpu.get("qom-path").is_none()).unwrap();
    let mut cpu = free["props"].clone();
    cpu["driver"] = free["type"].clone();
    cpu["id"] = json!("cpu1");
    client.execute("device_add", cpu);
    client.execute("object-add", json!({"qom-type": "memory-backend-ram", "id": "m", "size": 256 * MIB}));
    client.execute("device_add", json!({"driver": "pc-dimm", "id": "dimm", "memdev": "m"}));
    assert_eq!(sizes(&shot.vm(qemu.process.pid()).unwrap()), (2, 384, 384));

    client.execute("object-add", json!({"qom-type": "memory-backend-ram", "id": "n", "size": 128 * MIB}));
    client.execute("device_add", json!({"driver": "nvdimm", "id": "nvdimm", "memdev": "n"}));
    let with_storage = sizes(&shot.vm(qemu.process.pid()).unwrap());
    assert_eq!((with_storage.0, with_storage.1), (2, 384), "an NVDIMM is storage");
}

/// The daemon skips a monitor with a client, and frees it after each query of its own.
#[test]
fn a_busy_monitor_is_left_alone() {
    let qemu = Qemu::start();
    let shot = qemu.look();
    let holder = Client::connect(&qemu.socket("ours"));
    // These values come from its command line.
    let vm = shot.vm(qemu.process.pid()).unwrap();
    assert_eq!((vm["allocated_vcpus"].as_u64(), vm["actual_memory_bytes"].as_u64()), (Some(1), None));
    let health = shot.health("qemu_qmp");
    assert!(health.contains("degraded") && health.contains("no answer within 200 ms"), "{health}");
    drop(holder);
    assert!(shot.vm(qemu.process.pid()).unwrap()["actual_memory_bytes"].is_u64());
    Client::connect(&qemu.socket("ours")).execute("query-status", json!({}));
}
