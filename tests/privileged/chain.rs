//! Foreign programs on the same TAP run, stay, and change no count.

use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType, loaded_links};
use vm_metrics::NicSource;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::TapOptions;
use vm_metrics_testkit::wait::{SOON, wait_until};
use vm_metrics_testkit::{detach_bpf_link, hold_bpf_link};

use crate::lab::{Lab, attached_programs, manager_for, nics, tcx, ways};

#[test]
fn foreign_filters_still_run_and_stay() {
    for way in ways() {
        let mut lab = Lab::without_tick(way, 1, TapOptions::default());
        tc("qdisc add dev vmt0 clsact");
        // This program drops every frame, which ends the chain for the programs behind it.
        let add = ["filter", "add", "dev", "vmt0", "egress", "prio", "7", "bpf", "direct-action", "bytecode"];
        run_tc(&[&add[..], &["1,6 0 0 2"]].concat());
        lab.tick();
        let frame = Frame::to_guest().udp4(300);
        for _ in 0..5 {
            let refused = PacketSocket::bind("vmt0").unwrap().send(&frame);
            assert!(refused.is_err(), "{way}: theirs drops");
        }
        let (nic, ebpf) = lab.tick_one();
        assert_eq!(ebpf.rx.udp.unwrap(), 5, "{way}: ours counts");
        assert_eq!(nic.rx.packets, Some(0), "{way}");
        lab.forget_the_manager();
        let left = tc("filter show dev vmt0 egress");
        assert!(left.contains("pref 7") && !left.contains("tap_egress"), "{way}: {left}");
    }
}

#[test]
fn two_daemons_count_the_same_frames() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    for (first, second) in [("tcx", "tcx"), ("tcx", "clsact"), ("clsact", "tcx")] {
        let mut lab = Lab::attached_by(first, 1, TapOptions::default());
        let mut other = manager_for(second, &["vmt0"]);
        other.collect();
        for _ in 0..5 {
            lab.send(&Frame::from_guest().udp4(300));
            lab.offer(&Frame::to_guest().udp4(300));
        }
        for ebpf in [lab.tick_one().1, nics(&mut other)[0].ebpf.unwrap()] {
            assert_eq!((ebpf.tx.udp.unwrap(), ebpf.rx.udp.unwrap()), (5, 5), "{first} and {second}");
        }
    }
}

#[test]
fn filters_left_by_a_killed_daemon_are_replaced() {
    let mut lab = Lab::attached_by("clsact", 1, TapOptions::default());
    let mut successor = manager_for("clsact", &["vmt0"]);
    successor.collect();
    lab.send(&Frame::from_guest().udp4(300));
    assert_eq!(nics(&mut successor)[0].ebpf.unwrap().tx.udp.unwrap(), 1);
    assert_eq!(lab.tick_one().1.tx.udp.unwrap(), 0, "its filter was replaced");
    let filters = tc("filter show dev vmt0 ingress");
    assert_eq!(filters.matches("handle 0x766d").count(), 1, "{filters}");
}

/// This qdisc has one direction only. The daemon must not confuse the guest's output with its input.
#[test]
fn a_foreign_ingress_qdisc_stays() {
    let mut lab = Lab::without_tick("clsact", 1, TapOptions::default());
    tc("qdisc add dev vmt0 ingress");
    lab.tick();
    let frame = Frame::from_guest().udp4(300);
    (0..5).for_each(|_| lab.send(&frame));
    let nic = lab.tick().remove(0);
    assert_eq!((nic.source, nic.tx.packets, nic.rx.packets), (NicSource::Netlink, Some(5), Some(0)));
    assert_eq!(nic.ebpf, None);
    assert_eq!(attached_programs("vmt0"), 0);
    assert!(tc("qdisc show dev vmt0").contains("qdisc ingress ffff:"), "theirs stays");
}

#[test]
fn detached_programs_are_reattached() {
    for way in ways() {
        for off in [&["ingress"][..], &["egress"], &["ingress", "egress"]] {
            let mut lab = Lab::attached_by(way, 1, TapOptions::default());
            let mut passed = 0;
            let mut pass = |lab: &mut Lab| {
                lab.send(&Frame::from_guest().udp4(300));
                lab.offer(&Frame::to_guest().udp4(300));
                lab.drain();
                passed += 1;
                let (nic, ebpf) = lab.tick_one();
                let what = format!("{way}, {off:?} off: the device's count fills the gap");
                assert_eq!((nic.tx.packets, nic.rx.packets), (Some(passed), Some(passed)), "{what}");
                ebpf
            };
            let ebpf = pass(&mut lab);
            assert_eq!((ebpf.tx.udp.unwrap(), ebpf.rx.udp.unwrap()), (1, 1), "{way}");
            off.iter().for_each(|direction| take_off(way, direction));
            assert_eq!(attached_programs("vmt0"), 2 - off.len(), "{way}");
            // Another process that lists links holds the old one for a moment, and with it its program.
            let what = format!("{way}: {off:?} on again, after ticks with traffic");
            let is_on = || {
                pass(&mut lab);
                Ok((attached_programs("vmt0") == 2).then_some(()))
            };
            wait_until(SOON, &what, is_on).unwrap_or_else(|error| {
                panic!("{error:#}: {} programs", attached_programs("vmt0"));
            });
            let before = pass(&mut lab);
            let after = pass(&mut lab);
            assert_eq!(
                (after.tx.udp.unwrap(), after.rx.udp.unwrap()),
                (before.tx.udp.unwrap() + 1, before.rx.udp.unwrap() + 1),
                "{way}, {off:?}"
            );
        }
    }
}

/// Another process that lists links holds the old egress link beyond its end.
#[test]
fn a_held_old_link_counts_nothing() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    let mut lab = Lab::attached_by("tcx", 1, TapOptions::default());
    let held = hold_bpf_link(link_on(TcAttachType::Egress)).unwrap();
    take_off("tcx", "ingress");
    let mut pass = || {
        lab.send(&Frame::from_guest().udp4(300));
        lab.offer(&Frame::to_guest().udp4(300));
        lab.drain();
        let (nic, ebpf) = lab.tick_one();
        (nic.rx.packets.unwrap(), ebpf.rx.udp.unwrap())
    };
    let is_on = || {
        pass();
        let (_, programs) = SchedClassifier::query_tcx("vmt0", TcAttachType::Ingress).unwrap();
        Ok((!programs.is_empty()).then_some(()))
    };
    wait_until(SOON, "the ingress program on again, after ticks with traffic", is_on).unwrap();
    let (before, after) = (pass(), pass());
    assert_eq!(after.0 - before.0, 1, "the device counts");
    assert_eq!(after.1 - before.1, 1, "the programs count as the device");
    drop(held);
}

/// The guest reads its input late. So the device counts in ticks in which the egress program sees nothing.
#[test]
fn an_egress_doubt_delays_no_ingress() {
    for way in ways() {
        let mut lab = Lab::attached_by(way, 1, TapOptions::default());
        (0..5).for_each(|_| lab.offer(&Frame::to_guest().udp4(300)));
        let mut buffer = vec![0; 2048];
        for _ in 0..5 {
            lab.tick();
            assert!(lab.taps[0].read_frame(&mut buffer).unwrap().is_some());
        }
        take_off(way, "ingress");
        // Two ticks with traffic mean bypassed, and the next one reattaches.
        let is_on = (0..6).any(|_| {
            lab.send(&Frame::from_guest().udp4(300));
            lab.tick();
            attached_programs("vmt0") == 2
        });
        assert!(is_on, "{way}: the ingress program waits");
    }
}

/// Detaches the programs as another administrator would.
fn take_off(way: &str, direction: &str) {
    if way == "clsact" {
        tc(&format!("filter del dev vmt0 {direction} prio 1"));
        return;
    }
    let hook = if direction == "ingress" { TcAttachType::Ingress } else { TcAttachType::Egress };
    detach_bpf_link(link_on(hook)).unwrap();
}

/// Returns the number of the first link on the TAP.
fn link_on(hook: TcAttachType) -> u32 {
    let (_, programs) = SchedClassifier::query_tcx("vmt0", hook).unwrap();
    let link = loaded_links().map(Result::unwrap).find(|link| link.program_id() == programs[0].id());
    link.unwrap().id()
}

pub(crate) fn tc(arguments: &str) -> String {
    run_tc(&arguments.split(' ').collect::<Vec<_>>())
}

/// Runs tc in the namespace of the calling thread.
pub(crate) fn run_tc(arguments: &[&str]) -> String {
    let output = Command::new("tc").args(arguments).output().unwrap();
    assert!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
