//! Helper processes work while the test holds them, and end with it.

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::process_cpu_time;
use vm_metrics_testkit::vm_process::{self, StandIn, StandInSpec, Traffic};
use vm_metrics_testkit::wait::{SOON, wait_until};

/// The child process of the other tests, see `vm_process`. By itself it does nothing.
#[test]
fn stand_in_vm() {
    vm_process::run_if_asked().unwrap();
}

#[test]
fn a_stand_in_vm_moves_frames_both_ways() {
    let _netns = NetNs::enter().unwrap();
    let vm = StandIn::start(&spec(), this_program()).unwrap();
    let link = vm.link().clone();
    let counted = wait_until(SOON, "a hundred frames", || {
        let counted = link.counters()?;
        Ok((counted.rx_packets >= 100).then_some(counted))
    });
    let counted = counted.unwrap();
    assert_eq!(counted.rx_bytes, counted.rx_packets * 100);
    assert_eq!(counted.tx_bytes, counted.tx_packets * 1500);
    assert!(counted.tx_packets > 5 && counted.tx_packets < counted.rx_packets / 2, "{counted:?}");

    let exe = Path::new("/proc").join(vm.pid().to_string()).join("exe");
    assert!(exe.exists());
    drop(vm);
    assert!(!exe.exists() && !link.exists(), "process and device are gone");
}

#[test]
fn a_quiet_stand_in_vm_has_idle_threads() {
    let _netns = NetNs::enter().unwrap();
    let quiet = Traffic::default();
    let threads = vec!["CPU 0/KVM".to_owned(), "worker".to_owned()];
    let vm =
        StandIn::start(&StandInSpec { sends: quiet, receives: quiet, threads, ..spec() }, this_program());
    let vm = vm.unwrap();
    let tasks = Path::new("/proc").join(vm.pid().to_string()).join("task");
    let name =
        |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm")).unwrap();
    let names: Vec<String> = fs::read_dir(tasks).unwrap().map(name).collect();
    for thread in ["CPU 0/KVM\n", "worker\n"] {
        assert!(names.iter().any(|name| name == thread), "{names:?}");
    }
    assert_eq!(vm.link().counters().unwrap().rx_packets, 0);
}

#[test]
fn a_stand_in_vm_ends_with_its_thread() {
    let _netns = NetNs::enter().unwrap();
    let start = || {
        let vm = StandIn::start(&spec(), this_program()).unwrap();
        let link = vm.link().clone();
        assert!(link.exists());
        // The value never drops, as when the program is killed.
        std::mem::forget(vm);
        link
    };
    let link = thread::spawn(start).join().unwrap();
    wait_until(SOON, "the device to go", || Ok((!link.exists()).then_some(()))).unwrap();
}

#[test]
fn the_cpu_time_of_a_process_is_exact() {
    let used = || process_cpu_time(std::process::id()).unwrap();
    let (start, mut turns) = (used(), 0_u32);
    // The kernel's other files have steps of 10 ms.
    wait_until(SOON, "a little work", || Ok((used() > start).then_some(()))).unwrap();
    while used() < start + Duration::from_millis(5) {
        turns += 1;
    }
    assert!(turns > 0);
    assert!(process_cpu_time(u32::MAX).is_err());
}

#[test]
fn a_failed_start_shows_the_process_log() {
    let error = Daemon::start_command(shell("echo no such thing >&2; exit 3")).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such thing"), "{error}");
}

#[test]
fn a_daemon_is_terminated_or_killed() {
    let line = "echo INFO listening on http://127.0.0.1:9";
    let polite = format!("sleep 60 & trap 'kill $!; exit 7' TERM; {line}; wait");
    let mut polite = Daemon::start_command(shell(&polite)).unwrap();
    assert_eq!(polite.address().port(), 9);
    assert_eq!(polite.terminate().unwrap().code(), Some(7));
    let mut other = Daemon::start_command(shell(&format!("{line}; exec sleep 60"))).unwrap();
    assert_eq!(other.kill().unwrap().signal(), Some(9));
}

fn spec() -> StandInSpec {
    StandInSpec {
        tap: "vmstandin0".into(),
        sends: Traffic { packets_per_second: 1000, frame_bytes: 100 },
        receives: Traffic { packets_per_second: 100, frame_bytes: 1500 },
        memory_bytes: 1 << 20,
        threads: Vec::new(),
    }
}

fn this_program() -> Command {
    let mut command = Command::new(env::current_exe().expect("ask for the path of this executable"));
    command.args(["--exact", "stand_in_vm"]);
    command
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}
