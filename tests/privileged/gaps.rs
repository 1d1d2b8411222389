//! The daemon reports missed packets exactly, and the device's counters stay complete.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vm_metrics::Manager;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use crate::chain::tc;
use crate::isolation::isolated;
use crate::lab::{manager_with, nics, ways};

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// Sends so many frames from the guest and to it. The guest takes all of them.
fn exchange(tap: &Tap, sent: u64, taken: u64) {
    for _ in 0..sent {
        tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    }
    let host = PacketSocket::bind(tap.name()).unwrap();
    for _ in 0..taken {
        host.send(&Frame::to_guest().udp4(300)).unwrap();
        assert!(tap.read_frame(&mut [0; 2048]).unwrap().is_some());
    }
}

/// Returns the published packets in both directions, and those that the programs missed.
fn published(manager: &mut Manager) -> [Option<u64>; 4] {
    let nic = nics(manager).remove(0);
    [nic.tx.packets, nic.tx_gap_packets, nic.rx.packets, nic.rx_gap_packets]
}

fn start(way: &str, pin: bool) -> Manager {
    manager_with(&["vmt0"], &format!("[readers.tap_ebpf]\nattach = \"{way}\"\npin = {pin}\n"))
}

#[test]
fn traffic_before_the_attach_is_reported_missed() {
    for way in ways() {
        let _namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        exchange(&tap, 7, 3);
        let mut manager = start(way, false);
        assert_eq!(published(&mut manager), [7, 7, 3, 3].map(Some), "{way}");
        exchange(&tap, 2, 1);
        assert_eq!(published(&mut manager), [9, 7, 4, 3].map(Some), "{way}");
    }
}

/// With pins the programs count while no daemon runs. Without pins the daemon reports the missed packets.
#[test]
fn unpinned_programs_report_the_gap() {
    for (way, pin) in ways().into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let _namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let mut manager = start(way, pin);
        manager.collect();
        exchange(&tap, 7, 3);
        assert_eq!(published(&mut manager), [7, 0, 3, 0].map(Some), "{way}");
        drop(manager);
        exchange(&tap, 5, 2);
        let mut manager = start(way, pin);
        // Without pins the programs count from 0, so they miss the earlier packets.
        let missed = if pin { [0, 0] } else { [12, 5] };
        assert_eq!(published(&mut manager), [12, missed[0], 5, missed[1]].map(Some), "{way}, pins: {pin}");
    }
}

#[test]
fn traffic_during_a_detach_is_reported_missed() {
    let _namespace = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let mut manager = start("clsact", false);
    manager.collect();
    exchange(&tap, 4, 4);
    assert_eq!(published(&mut manager), [4, 0, 4, 0].map(Some));
    for direction in ["ingress", "egress"] {
        tc(&format!("filter del dev vmt0 {direction} prio 1"));
    }
    let mut off = 0;
    while !tc("filter show dev vmt0 ingress").contains("handle 0x766d") {
        assert!(off < 10, "still off after ten ticks with traffic");
        exchange(&tap, 1, 2);
        off += 1;
        let so_far = [4 + off, off, 4 + 2 * off, 2 * off].map(Some);
        assert_eq!(published(&mut manager), so_far, "at each tick");
    }
    exchange(&tap, 3, 3);
    assert_eq!(published(&mut manager), [7 + off, off, 7 + 2 * off, 2 * off].map(Some));
}

/// SIGSTOP suspends the daemon, as an overloaded host would.
#[test]
fn late_ticks_are_reported() {
    // The daemon must not find VMs of other tests.
    isolated("gaps::late_ticks_are_reported", || {
        let _namespace = NetNs::enter().unwrap();
        let daemon = Daemon::start(Path::new(BINARY), &["--interval", "50ms"]).unwrap();
        daemon.wait_until_ready().unwrap();
        let pid = Pid::from_raw(daemon.pid().try_into().unwrap()).unwrap();
        let gap = |metrics: &Metrics| metrics.value("vm_exporter_gap_seconds_total", &[]);
        let start = Instant::now();
        let before = gap(&daemon.metrics().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        thread::sleep(Duration::from_secs(1));
        kill_process(pid, Signal::CONT).unwrap();
        let output_text =
            daemon.wait_for(SOON, "the gap", |metrics| gap(metrics).filter(|gap| *gap > before + 0.5));
        let (output_text, passed) = (output_text.unwrap() - before, start.elapsed().as_secs_f64());
        assert!(output_text < passed + 0.05, "{output_text} of {passed}");
        assert!(daemon.metrics().unwrap().value("vm_exporter_ticks_late_total", &[]) >= Some(1.0));
    });
}

#[test]
fn lost_device_events_are_reported() {
    let _namespace = NetNs::enter().unwrap();
    let mut manager = manager_with(&["vmt0"], "retention = \"0s\"\n[readers.tap_ebpf]\nenabled = false\n");
    let lost = |manager: &mut Manager| {
        manager.collect().components.iter().find(|part| part.name == "tap_netlink").and_then(|part| part.lost)
    };
    let other = Tap::create_up("vmt1", TapOptions::default()).unwrap();
    assert_eq!(lost(&mut manager), Some(0));
    for mtu in (0..4000).map(|step| 1400 + step % 2) {
        other.link().set_mtu(mtu).unwrap();
    }
    // The TAP lives and sends, and the message with its final counters finds no room.
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    exchange(&tap, 5, 0);
    drop(tap);
    assert_eq!(published(&mut manager)[0], None);
    assert_eq!(lost(&mut manager), Some(1));
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    exchange(&tap, 5, 0);
    drop(tap);
    assert_eq!(published(&mut manager)[0], Some(5), "it receives later events again");
    assert_eq!(lost(&mut manager), Some(1));
}
