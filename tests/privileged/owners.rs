//! A TAP that outlives its VM: the next VM starts at zero.

use std::path::Path;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::Tap;
use vm_metrics_testkit::wait::SOON;

use crate::isolation::isolated;
use crate::lab::ways;
use crate::vmm::{FRAME, Program, SHARED, Work};

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// Waits until this VM has so many frames by eBPF, in bytes, packets and by transport.
fn wait_for(daemon: &Daemon, vm: &str, frames: u64) {
    let wanted = frames as f64;
    let all = |metrics: &Metrics| {
        let bytes = metrics.value("vm_network_tx_bytes_total", &[("instance_id", vm)])?;
        let packets = metrics.value("vm_network_tx_packets_total", &[("instance_id", vm)])?;
        let udp = [("instance_id", vm), ("direction", "tx"), ("transport", "udp")];
        let udp = metrics.value("vm_network_packets_by_transport_total", &udp)?;
        assert!(packets <= wanted && udp <= wanted, "{vm}: {packets} packets, {udp} of UDP, of {frames}");
        ((bytes, packets, udp) == (wanted * FRAME as f64, wanted, wanted)).then_some(())
    };
    daemon.wait_for(SOON, &format!("{frames} frames of {vm}"), all).unwrap();
}

fn wait_for_end(daemon: &Daemon, vm: &str) {
    let gone =
        |metrics: &Metrics| metrics.value("vm_running", &[("instance_id", vm)]).filter(|up| *up == 0.0);
    daemon.wait_for(SOON, "the end of the VM", gone).unwrap();
}

#[test]
fn a_passed_on_tap_starts_at_zero() {
    isolated("owners::a_passed_on_tap_starts_at_zero", || {
        for way in ways() {
            let _namespace = NetNs::enter().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let config = dir.path().join("config.toml");
            let tables = "[readers.tap_ebpf]\nattach = ";
            let text = format!("interval = \"50ms\"\nstate_dir = {:?}\n{tables}\"{way}\"\n", dir.path());
            std::fs::write(&config, text).unwrap();
            let start = || Daemon::start(Path::new(BINARY), &["--config", config.to_str().unwrap()]).unwrap();
            let mut daemon = start();
            let program = Program::new();
            let tap = Tap::create_up("vmt0", SHARED).unwrap();

            let first = program.start("vmt0", Work::default());
            let a = daemon.id_of(first.pid()).unwrap();
            daemon.wait_for_ebpf().unwrap();
            let send = |frames: u64| {
                (0..frames).for_each(|_| tap.write_frame(&Frame::from_guest().udp4(300)).unwrap());
            };
            send(10);
            wait_for(&daemon, &a, 10);
            send(3);
            first.kill();
            wait_for_end(&daemon, &a);
            wait_for(&daemon, &a, 13);

            let second = program.start("vmt0", Work { frames: 5, ..Work::default() });
            let b = daemon.id_of(second.pid()).unwrap();
            wait_for(&daemon, &b, 5);
            send(7);
            wait_for(&daemon, &b, 12);
            wait_for(&daemon, &a, 13);

            daemon.kill().unwrap();
            send(4);
            let daemon = start();
            wait_for(&daemon, &b, 16);
            // The TAP passes to a third VM while no daemon runs. The traffic in between belongs to no VM.
            drop(daemon);
            second.kill();
            let third = program.start("vmt0", Work { frames: 2, ..Work::default() });
            let daemon = start();
            let c = daemon.id_of(third.pid()).unwrap();
            send(6);
            wait_for(&daemon, &c, 6);
        }
    });
}

/// An operator adds a name for a running VM, and restarts the daemon.
#[test]
fn a_vm_with_a_new_id_continues() {
    isolated("owners::a_vm_with_a_new_id_continues", || {
        let _namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let start = |tables: &str| {
            let text = format!("interval = \"50ms\"\nstate_dir = {:?}\n{tables}", dir.path());
            std::fs::write(&config, text).unwrap();
            Daemon::start(Path::new(BINARY), &["--config", config.to_str().unwrap()]).unwrap()
        };
        let mut daemon = start("");
        let program = Program::new();
        let tap = Tap::create_up("vmt0", SHARED).unwrap();
        let send =
            |frames: u64| (0..frames).for_each(|_| tap.write_frame(&Frame::from_guest().udp4(300)).unwrap());
        let first = program.start("vmt0", Work::default());
        let a = daemon.id_of(first.pid()).unwrap();
        daemon.wait_for_ebpf().unwrap();
        send(10);
        wait_for(&daemon, &a, 10);
        first.kill();
        wait_for_end(&daemon, &a);
        let second = program.start("vmt0", Work { frames: 5, ..Work::default() });
        let b = daemon.id_of(second.pid()).unwrap();
        wait_for(&daemon, &b, 5);
        daemon.terminate().unwrap();
        send(4);
        let list = format!("[[sources.static_list.vms]]\nid = \"named\"\npid = {}\n", second.pid());
        let daemon = start(&list);
        wait_for(&daemon, "named", 9);
        send(1);
        wait_for(&daemon, "named", 10);
    });
}
