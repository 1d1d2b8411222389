//! The final counters of devices that disappear between two ticks.

use std::path::Path;

use vm_metrics::Manager;
use vm_metrics::VmStats;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use crate::lab::{manager_with, nics, ways};

fn only(manager: &mut Manager) -> VmStats {
    let snapshot = manager.collect();
    assert_eq!(snapshot.vms.len(), 1);
    snapshot.vms[0].clone()
}

#[test]
fn the_final_frames_of_a_tap_are_counted() {
    for way in ways() {
        let _namespace = NetNs::enter().unwrap();
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        let tables = format!("[readers.tap_ebpf]\npin = false\nattach = \"{way}\"\n");
        let mut manager = manager_with(&["vmt0"], &tables);
        manager.collect();
        tap.send_udp4(5, 300).unwrap();
        manager.collect();
        tap.send_udp4(7, 300).unwrap();
        let frame = Frame::to_guest().udp4(1000);
        let host = PacketSocket::bind("vmt0").unwrap();
        let mut buffer = [0; 2048];
        for _ in 0..3 {
            host.send(&frame).unwrap();
            assert!(tap.read_frame(&mut buffer).unwrap().is_some());
        }
        drop(tap);
        for _ in 0..3 {
            let nic = nics(&mut manager).remove(0);
            let taken = 3 * frame.len() as u64;
            assert_eq!((nic.rx.packets, nic.rx.bytes), (Some(3), Some(taken)), "{way}: by the last message");
            assert_eq!(nic.tx.packets, Some(12), "{way}");
            assert_eq!(nic.ebpf.unwrap().tx.udp.unwrap(), 12, "{way}");
        }
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        tap.send_udp4(1, 300).unwrap();
        assert_eq!(nics(&mut manager).remove(0).tx.packets, Some(1), "{way}: a new device begins anew");
    }
}

#[test]
fn series_end_after_the_retention() {
    let _namespace = NetNs::enter().unwrap();
    let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    let mut manager = manager_with(&["vmt0"], "retention = \"0s\"\n[readers.tap_ebpf]\npin = false\n");
    manager.collect();
    tap.send_udp4(5, 300).unwrap();
    assert_eq!(only(&mut manager).nics[0].tx.packets, Some(5));
    drop(tap);
    assert_eq!(nics(&mut manager)[0].tx.packets, None);
}

#[test]
fn a_tap_without_a_tick_is_counted() {
    let _namespace = NetNs::enter().unwrap();
    let mut manager = manager_with(&["vmt0"], "[readers.tap_ebpf]\npin = false\n");
    manager.collect();
    for frames in [5, 7] {
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        tap.send_udp4(frames, 300).unwrap();
        drop(tap);
        for _ in 0..3 {
            let nic = nics(&mut manager).remove(0);
            assert_eq!((nic.tx.packets, nic.rx.packets), (Some(frames), Some(0)));
        }
    }
}

/// A VM recreates its TAP several times between two ticks. The kernel reports the counters of each.
#[test]
fn all_taps_of_one_name_are_summed() {
    let _namespace = NetNs::enter().unwrap();
    let mut manager = manager_with(&["vmt0"], "[readers.tap_ebpf]\npin = false\n");
    manager.collect();
    let frame = Frame::from_guest().udp4(300).len() as u64;
    let mut sent = 0;
    for tick in 0..6_u64 {
        let devices = if tick == 4 { 0 } else { 5 };
        let mut last = None;
        for _ in 0..devices {
            // A namespace has one device of each name.
            drop(last.take());
            let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
            tap.send_udp4(3, 300).unwrap();
            sent += 3;
            last = Some(tap);
        }
        // In some ticks the last TAP exists, in others none.
        if tick % 2 == 0 {
            drop(last.take());
        }
        let read = only(&mut manager);
        let sums = (read.net_tx_packets, read.net_tx_bytes);
        if sums.0.is_some() {
            assert_eq!(sums, (Some(sent), Some(sent * frame)), "tick {tick}");
        }
        if let Some(tap) = last {
            tap.send_udp4(2, 300).unwrap();
            sent += 2;
        }
    }
    let _tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
    assert_eq!(only(&mut manager).net_tx_packets, Some(sent));
}

/// Ticks are an hour apart, and device events trigger more.
#[test]
fn a_tap_between_two_ticks_is_counted() {
    let _namespace = NetNs::enter().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = "interval = \"1h\"\n[sources.proc_scan]\nenabled = false\n\
                [[sources.static_list.vms]]\nid = \"a\"\ntaps = [\"vmt0\"]\n[readers.tap_ebpf]\npin = false\n";
    std::fs::write(&config, text).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_vm-metrics")), &args).unwrap();
    let by_ebpf = |metrics: &Metrics| metrics.value("vm_network_source_info", &[("source", "ebpf")]);
    let packets = |metrics: &Metrics| metrics.value("vm_network_tx_packets_total", &[]);
    let mut sent = 0;
    for incarnation in 1..=3_u32 {
        let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
        // The series continues from the end of the previous TAP.
        let begun = |metrics: &Metrics| by_ebpf(metrics).filter(|_| packets(metrics) == Some(sent.into()));
        daemon.wait_for(SOON, "the programs on the new TAP", begun).unwrap();
        let frames = incarnation * 1000;
        tap.send_udp4(frames.into(), 300).unwrap();
        drop(tap);
        sent += frames;
        let all = |metrics: &Metrics| packets(metrics).filter(|packets| *packets == f64::from(sent));
        daemon.wait_for(SOON, "the last frame", all).unwrap();
        // Gauges end with the TAP.
        let ended = |metrics: &Metrics| by_ebpf(metrics).is_none().then(|| metrics.clone());
        let metrics = daemon.wait_for(SOON, "the end of the TAP", ended).unwrap();
        assert_eq!(metrics.value("vm_network_tx_bytes_total", &[]), Some(f64::from(sent) * 342.0));
    }
}
