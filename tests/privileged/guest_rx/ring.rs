//! Drops by a full ring, a qdisc, or a program.

use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use vm_metrics::Traffic;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use super::{assert_balance, bytes, frames, look, offer, sees_drops, take};
use crate::chain::{run_tc, tc};
use crate::lab::{Lab, manager_of, ways};

/// More than the ring of a TAP holds.
const MANY: usize = 1700;

#[test]
fn an_idle_vmm_has_backlog_and_drops() {
    for way in ways() {
        let mut lab = Lab::attached_by(way, 1, TapOptions::default());
        let host = PacketSocket::bind("vmt0").unwrap();
        let sent: Vec<_> = frames().take(MANY).collect();
        sent.iter().for_each(|frame| offer(&host, frame));

        let (nic, offered) = look(&mut lab);
        let device = lab.taps[0].link().counters().unwrap();
        let ring = MANY - device.tx_dropped as usize;
        assert!(device.tx_packets == 0 && ring < MANY, "{way}: {device:?}");
        assert_eq!(offered.backlog_packets, Some(ring as u64), "{way}");
        assert_eq!((offered.packets, offered.bytes), (Some(MANY as u64), Some(bytes(&sent))), "{way}");
        if !sees_drops(&offered) {
            assert_eq!(offered.backlog_bytes, None);
            return;
        }
        // The ring has the first frames, and the others found no room.
        assert_balance(&nic, &offered, (ring as u64, bytes(&sent[..ring])), way);
        let dropped = offered.dropped_ring_full.unwrap();
        assert_eq!((dropped.packets, dropped.bytes), (device.tx_dropped, bytes(&sent[ring..])), "{way}");

        let taken = take(&lab, 100);
        assert_eq!(taken.iter().sum::<usize>() as u64, bytes(&sent[..100]), "{way}");
        let (nic, offered) = look(&mut lab);
        assert_balance(&nic, &offered, (ring as u64 - 100, bytes(&sent[100..ring])), way);
        take(&lab, usize::MAX);
        let (nic, offered) = look(&mut lab);
        assert_balance(&nic, &offered, (0, 0), way);
    }
}

/// The source fails or restarts, so the VM is missing in some ticks.
#[test]
fn a_returning_vm_keeps_its_drops() {
    for way in ways() {
        let vms = tempfile::tempdir().unwrap();
        let (vm, config) = (
            vms.path().join("a.toml"),
            format!(
                "[readers.tap_ebpf]\nattach = \"{way}\"\npin = false\n\
             [sources.proc_scan]\nenabled = false\n[sources.vm_dir]\ndir = {:?}\n",
                vms.path()
            ),
        );
        let be_there = || fs::write(&vm, "taps = [\"vmt0\"]\n").unwrap();
        be_there();
        let mut lab = Lab::managed(1, TapOptions::default(), |_| manager_of(&config));
        lab.tick();
        let host = PacketSocket::bind("vmt0").unwrap();
        let sent: Vec<_> = frames().take(MANY).collect();
        sent.iter().for_each(|frame| offer(&host, frame));
        let (_, before) = look(&mut lab);
        if !sees_drops(&before) {
            return;
        }
        fs::remove_file(&vm).unwrap();
        (0..5).for_each(|_| drop(lab.tick()));
        sent[..10].iter().for_each(|frame| offer(&host, frame));
        be_there();
        let (nic, offered) = look(&mut lab);
        let dropped = (before.dropped_ring_full.unwrap(), offered.dropped_ring_full.unwrap());
        assert_eq!(dropped.1.packets, dropped.0.packets + 10, "{way}");
        let ring = MANY - dropped.0.packets as usize;
        assert_balance(&nic, &offered, (ring as u64, bytes(&sent[..ring])), way);
        take(&lab, usize::MAX);
        let (nic, offered) = look(&mut lab);
        assert_balance(&nic, &offered, (0, 0), way);
    }
}

#[test]
fn frames_before_the_attach_are_not_offered() {
    let mut lab = Lab::without_tick("auto", 1, TapOptions::default());
    let host = PacketSocket::bind("vmt0").unwrap();
    let sent: Vec<_> = frames().take(MANY).collect();
    sent.iter().for_each(|frame| offer(&host, frame));
    take(&lab, 10);
    let (_, offered) = look(&mut lab);
    assert_eq!((offered.packets, offered.backlog_packets), (Some(0), Some(0)));
    take(&lab, usize::MAX);
    look(&mut lab);
    sent[..5].iter().for_each(|frame| offer(&host, frame));
    let (nic, offered) = look(&mut lab);
    assert_eq!((offered.packets, offered.backlog_packets), (Some(5), Some(5)), "{nic:?}");
    if sees_drops(&offered) {
        assert_eq!(
            (offered.bytes, offered.backlog_bytes),
            (Some(bytes(&sent[..5])), Some(bytes(&sent[..5])))
        );
    }
}

#[test]
fn several_cpus_and_a_slow_vmm_balance() {
    const PER_THREAD: usize = 20_000;
    /// The traffic exceeds several rings, so that even slow senders cause drops.
    const UNREAD_BYTES: u64 = 3_000_000;
    let mut lab = Lab::new(1, TapOptions::default());
    let (sent_bytes, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let reader = lab.taps[0].as_fd().try_clone_to_owned().unwrap();
    let senders = thread::available_parallelism().unwrap().get() * 2;
    thread::scope(|scope| {
        let sending: Vec<_> = (0..senders)
            .map(|n| {
                let sent_bytes = &sent_bytes;
                scope.spawn(move || {
                    let host = PacketSocket::bind("vmt0").unwrap();
                    for frame in frames().skip(n).take(PER_THREAD) {
                        offer(&host, &frame);
                        sent_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut buffer = vec![0; 2048];
            while sent_bytes.load(Ordering::Relaxed) < UNREAD_BYTES && !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            while !done.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    let _ = rustix::io::read(&reader, &mut buffer);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        while sending.iter().any(|sender| !sender.is_finished()) {
            let (nic, offered) = look(&mut lab);
            let ring = offered.dropped_ring_full.unwrap_or_default().packets;
            let queue = offered.dropped_qdisc.unwrap_or_default().packets;
            let gone = nic.rx.packets.unwrap() + ring + queue;
            assert!(gone <= offered.packets.unwrap(), "{nic:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let sent = (senders * PER_THREAD) as u64;
    let (nic, offered) = look(&mut lab);
    assert_eq!((offered.packets, offered.bytes), (Some(sent), Some(sent_bytes.into_inner())));
    assert!(nic.rx.packets > Some(1000) && nic.rx.dropped > Some(1000), "{nic:?}");
    let rest = take(&lab, usize::MAX);
    if sees_drops(&offered) {
        assert_balance(&nic, &offered, (rest.len() as u64, rest.iter().sum::<usize>() as u64), "slowly");
        let (nic, offered) = look(&mut lab);
        assert_balance(&nic, &offered, (0, 0), "all");
    }
}

#[test]
fn qdisc_drops_are_counted_apart() {
    let mut lab = Lab::new(1, TapOptions::default());
    tc("qdisc add dev vmt0 root tbf rate 8mbit burst 4kb limit 20000");
    let host = PacketSocket::bind("vmt0").unwrap();
    let sent: Vec<_> = frames().take(300).collect();
    sent.iter().for_each(|frame| offer(&host, frame));
    let (_, offered) = look(&mut lab);
    assert_eq!(offered.bytes, Some(bytes(&sent)));
    if !sees_drops(&offered) {
        return;
    }
    let dropped = offered.dropped_qdisc.unwrap();
    assert!(dropped.packets > 0 && offered.dropped_ring_full.unwrap().packets == 0, "{offered:?}");
    // The qdisc releases its backlog over time.
    let empty = || {
        take(&lab, usize::MAX);
        Ok((lab.taps[0].link().counters()?.tx_packets == 300 - dropped.packets).then_some(()))
    };
    wait_until(SOON, "the rest", empty).unwrap();
    let (nic, offered) = look(&mut lab);
    assert_balance(&nic, &offered, (0, 0), "shaped");
}

#[test]
fn drops_by_later_programs_are_counted_apart() {
    for way in ways() {
        let mut lab = Lab::without_tick(way, 1, TapOptions::default());
        tc("qdisc add dev vmt0 clsact");
        let add = ["filter", "add", "dev", "vmt0", "egress", "prio", "7", "bpf", "direct-action", "bytecode"];
        run_tc(&[&add[..], &["1,6 0 0 2"]].concat());
        lab.tick();
        let host = PacketSocket::bind("vmt0").unwrap();
        let sent: Vec<_> = frames().take(20).collect();
        sent.iter().for_each(|frame| offer(&host, frame));
        let (nic, offered) = look(&mut lab);
        assert_eq!(nic.rx.packets, Some(0), "{way}: theirs drops");
        if sees_drops(&offered) {
            assert_eq!(offered.dropped_qdisc.unwrap().bytes, bytes(&sent), "{way}");
            assert_balance(&nic, &offered, (0, 0), way);
        }
    }
}

#[test]
fn only_drops_towards_the_guest_count() {
    let mut lab = Lab::new(1, TapOptions::default());
    let other = Tap::create_up("vmother", TapOptions::default()).unwrap();
    let host = PacketSocket::bind(other.name()).unwrap();
    for frame in frames().take(MANY) {
        offer(&host, &frame);
        // The host discards these frames.
        lab.taps[0].write_frame(&frame).unwrap();
    }
    let (_, offered) = look(&mut lab);
    if sees_drops(&offered) {
        let none = Some(Traffic::default());
        assert_eq!((offered.dropped_ring_full, offered.dropped_qdisc), (none, none));
    }
    assert_eq!(offered.backlog_packets, Some(0));
}
