//! Too small a limit names the minimum; above it the daemon works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use crate::isolation::isolated;

/// Enough to load an unoptimised program, and too little for it to work.
const AS_MIB: u64 = 64;

/// Returns a command that starts root's daemon under this limit.
fn serve(scene: &Scene, limited: &[&str]) -> Command {
    let config = scene.path("config.toml");
    fs::write(&config, "interval = \"100ms\"\n").unwrap();
    let mut command = Command::new(limited[0]);
    command.args(&limited[1..]).arg(scene.path("vm-metrics"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    command
}

/// Returns the message of a daemon that does not start.
fn refusal(scene: &Scene, limited: &[&str]) -> String {
    let mut daemon = ChildProcess::spawn("vm-metrics", &mut serve(scene, limited)).unwrap();
    let status = daemon.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "{limited:?}: {}", daemon.log());
    daemon.log()
}

#[test]
fn too_few_open_files_name_the_minimum() {
    isolated("hostile::small_limits::too_few_open_files_name_the_minimum", || {
        let scene = Scene::new();
        for limit in [24, 64, 111] {
            let log = refusal(&scene, &["prlimit", &format!("--nofile={limit}")]);
            let wording =
                format!("the limit of open files is {limit}: at least 112 are needed (LimitNOFILE=");
            assert!(log.contains(&wording), "{log}");
        }
        let mut victim = scene.victim(VICTIM, "vmt0");
        for limit in [112, 128] {
            let command = serve(&scene, &["prlimit", &format!("--nofile={limit}")]);
            let daemon = Daemon::start_command(command).unwrap();
            daemon.wait_until_ready().unwrap();
            victim.work(3);
            victim.assert_exact(&daemon);
            let wording = format!("the limit of open files is {limit}: enough for about ");
            assert!(daemon.log().contains(&wording), "{}", daemon.log());
        }
    });
}

#[test]
fn too_little_memory_names_the_minimum() {
    isolated("hostile::small_limits::too_little_memory_names_the_minimum", || {
        let scene = Scene::new();
        // The debug program is large, and the kernel maps it before its first message.
        for (option, what, limit) in [("--data", "data", 24), ("--as", "address space", AS_MIB)] {
            let log = refusal(&scene, &["prlimit", &format!("{option}={}", limit << 20)]);
            let wording = format!("the limit of {what} is {limit} MiB: at least ");
            assert!(log.contains(&wording), "{log}");
        }
    });
}

/// A control group, removed on drop.
struct Group(PathBuf);

impl Group {
    /// Makes the group; `None` without a version 1 hierarchy for memory. A `Scene` hides the hierarchy, so call it
    /// outside.
    fn with_memory(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.split_once(":memory:/"))?.1;
        let parent = Path::new("/sys/fs/cgroup/memory").join(own);
        let group = Self(parent.join(format!("vm-metrics-{}-{bytes}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_small_control_group_names_the_minimum() {
    let binary = env!("CARGO_BIN_EXE_vm-metrics");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    // This daemon must not touch the host's own devices.
    let off = "[sources.proc_scan]\nenabled = false\n[sources.push]\nenabled = false\n";
    fs::write(&config, format!("{off}[readers.tap_ebpf]\npin = false\n")).unwrap();
    let serve = "echo $$ > \"$0\" && exec \"$1\" serve --listen 127.0.0.1:0 --config \"$2\"";
    let in_group = |group: &Group| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", serve]).arg(group.0.join("cgroup.procs")).arg(binary).arg(&config);
        shell
    };
    let Some(small) = Group::with_memory(24 << 20) else {
        return skip("no control group for memory can be made here");
    };
    let mut daemon = ChildProcess::spawn("vm-metrics", &mut in_group(&small)).unwrap();
    assert_eq!(daemon.wait(SOON).unwrap().code(), Some(1), "{}", daemon.log());
    let wording = "is 24 MiB: at least 4";
    assert!(daemon.log().contains(wording) && daemon.log().contains("MemoryMax="), "{}", daemon.log());
    drop((daemon, small));

    let enough = Group::with_memory(64 << 20).unwrap();
    let daemon = Daemon::start_command(in_group(&enough)).unwrap();
    daemon.wait_until_ready().unwrap();
    daemon.metrics().unwrap();
    drop((daemon, enough));
}
