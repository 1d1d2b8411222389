//! Commands and limits of an operator, with real TAPs and users.

use std::fs::{self, read_dir};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::{Metrics, Sample};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::service;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use crate::lab::tcx;
use crate::user::User;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// VMs in the configuration, each with a process and a TAP.
struct Vms {
    config: PathBuf,
    _processes: Vec<ChildProcess>,
    _taps: Vec<Tap>,
    _dir: TempDir,
}

impl Vms {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut taps, mut processes) = (Vec::new(), Vec::new());
        let mut text = "interval = \"100ms\"\n[sources.proc_scan]\nenabled = false\n".to_owned();
        for at in 0..count {
            let tap = Tap::create_up(&format!("vmt{at}"), TapOptions::default()).unwrap();
            let process = ChildProcess::spawn("sleep", Command::new("sleep").arg("infinity")).unwrap();
            let (name, pid) = (tap.name(), process.pid());
            text +=
                &format!("[[sources.static_list.vms]]\nid = \"vm{at}\"\npid = {pid}\ntaps = [\"{name}\"]\n");
            taps.push(tap);
            processes.push(process);
        }
        let config = dir.path().join("config.toml");
        fs::write(&config, text).unwrap();
        Self { config, _processes: processes, _taps: taps, _dir: dir }
    }

    fn serve(&self) -> Daemon {
        Daemon::start(Path::new(BINARY), &["--config", self.config.to_str().unwrap()]).unwrap()
    }
}

fn is_in_state(metrics: &Metrics, state: &str) -> Option<()> {
    let labels = [("component", "tap_ebpf"), ("state", state)];
    (metrics.value("vm_exporter_component_health", &labels) == Some(1.0)).then_some(())
}

/// Returns the number of TAPs that the programs count.
fn attached(metrics: &Metrics) -> usize {
    let by_ebpf = |sample: &&Sample| sample.label("source") == Some("ebpf");
    metrics.samples("vm_network_source_info").filter(by_ebpf).count()
}

/// A hundred TAPs take seconds, and health stays good meanwhile.
#[test]
fn a_start_with_many_taps_is_healthy() {
    if let Err(reason) = tcx() {
        // clsact filters attach at once.
        return skip(&reason);
    }
    let _namespace = NetNs::enter().unwrap();
    let vms = Vms::new(100);
    let daemon = vms.serve();
    daemon.wait_for(SOON, "the start", |metrics| is_in_state(metrics, "starting")).unwrap();
    let mut most = 0;
    while most < 100 {
        let more = |metrics: &Metrics| Some(attached(metrics)).filter(|now| *now > most);
        most = daemon.wait_for(SOON, "one more TAP with programs", more).unwrap();
    }
    daemon.wait_for(SOON, "the end of the start", |metrics| is_in_state(metrics, "healthy")).unwrap();
    let log = daemon.log();
    assert!(!log.contains("WARN"), "{log}");
    assert!(log.contains("TAPs wait for the eBPF programs"), "{log}");
}

/// docs/accounting.md documents the number.
#[test]
fn open_files_per_vm_match_the_docs() {
    if let Err(reason) = tcx() {
        // Filters take fewer descriptors than links.
        return skip(&reason);
    }
    let _namespace = NetNs::enter().unwrap();
    let open_files = |count: usize| {
        let vms = Vms::new(count);
        let daemon = vms.serve();
        let all = |metrics: &Metrics| (attached(metrics) == count).then_some(());
        daemon.wait_for(SOON, "all VMs with programs", all).unwrap();
        let connections = 1;
        read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() - connections
    };
    let (few, many) = (open_files(2), open_files(12));
    // A briefly open file counts for no VM.
    let per_vm = (many - few + 5) / 10;
    let page = include_str!("../../docs/accounting.md");
    let wording = format!("{per_vm} open files for each VM with one thread and one TAP");
    assert!(page.contains(&wording), "{few} files with 2 VMs, {many} with 12: {wording}");
}

fn doctor(args: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(["doctor"]).args(args).env("LC_ALL", "C.UTF-8");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Root would break it with doctor's advice to make the directories root's own.
#[test]
fn roots_doctor_leaves_the_service_alone() {
    let _namespace = NetNs::enter().unwrap();
    User::Service.prepare_host();
    let vms = Vms::new(1);
    fs::set_permissions(vms.config.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut daemon = User::Service.start(Path::new(BINARY), &vms.config).unwrap();
    daemon.wait_for(SOON, "the programs", |metrics| is_in_state(metrics, "healthy")).unwrap();
    let config = ["--config", vms.config.to_str().unwrap()];
    let own = |line: &&str| ["state", "push", "pins", "tap_ebpf"].iter().any(|name| line.contains(name));
    let assert_harmless = |message: &str| {
        assert!(!message.contains("chown") && !message.contains("remove"), "{message}");
        let bad: Vec<&str> = message.lines().filter(own).filter(|line| line.starts_with('✗')).collect();
        assert!(bad.is_empty(), "{message}");
    };
    let asked = doctor(&config);
    assert_harmless(&asked);
    let who = format!("process {}, user vm-metrics ({}), ", daemon.pid(), service::UID);
    assert!(asked.contains(&who) && asked.contains("✓ pins"), "{asked}");

    let alone = doctor(&[&config[..], &["--no-daemon"]].concat());
    assert_harmless(&alone);
    let owner = format!("belongs to user {}: ", service::UID);
    assert!(alone.matches(&owner).count() >= 3, "state, push and pins: {alone}");
    // A user without access gets an explanation.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", BINARY, "doctor"]).args(config);
    let message = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(message.contains("run doctor as root") && !message.contains("CAP_BPF"), "{message}");
    daemon.terminate().unwrap();
    assert_harmless(&doctor(&config));
}

/// Users without access to the socket use the address.
#[test]
fn snapshot_asks_at_the_address_without_a_socket() {
    let _namespace = NetNs::enter().unwrap();
    let vms = Vms::new(1);
    let text = fs::read_to_string(&vms.config).unwrap();
    fs::write(&vms.config, format!("listen = \"127.0.0.1:9999\"\nhttp.socket = \"\"\n{text}")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(&vms.config);
    let daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    let output =
        Command::new(BINARY).args(["snapshot", "--json", "--config"]).arg(&vms.config).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    let who = "these numbers are of the daemon at http://127.0.0.1:9999";
    assert_eq!(message.trim_end(), format!("{who} (process {}, user root)", daemon.pid()));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"instance_id\":\"vm0\""));
}

/// Any user can take the port while the daemon does not run.
#[test]
fn roots_snapshot_asks_no_foreign_daemon() {
    let _namespace = NetNs::enter().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = |name: &str, text: &str| {
        let path = dir.path().join(name);
        let same = "listen = \"127.0.0.1:9999\"\nhttp.socket = \"\"\n[sources.proc_scan]\nenabled = false\n";
        fs::write(&path, format!("{same}{text}")).unwrap();
        path
    };
    let vm = |id: &str| format!("[[sources.static_list.vms]]\nid = \"{id}\"\npid = 1\n");
    let forged = config("forged.toml", &vm("forged"));
    let binary = dir.path().join("vm-metrics");
    fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--pdeathsig", "KILL"]).arg(binary);
    command.args(["serve", "--no-ebpf", "--config"]).arg(forged);
    let stranger = Daemon::start_command(command).unwrap();
    let own = config("own.toml", &vm("own"));
    let output = Command::new(BINARY).args(["snapshot", "--json", "--config"]).arg(own).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    let who = format!("process {} (\"vm-metrics\") of user ", stranger.pid());
    assert!(message.starts_with(&who) && message.contains("is not believed to be the daemon"), "{message}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("forged"));
}
