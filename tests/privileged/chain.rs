//! Others on the same TAP: their programs still run, ours still counts, and what is theirs stays.

use std::process::Command;

use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::TapOptions;

use crate::lab::{Lab, manager_for, nics, tcx, ways};

#[test]
fn filters_of_others_still_run_and_stay() {
    for way in ways() {
        let mut lab = Lab::without_tick(way, 1, TapOptions::default());
        tc("qdisc add dev vmt0 clsact");
        // Drops every frame, which ends the chain for whatever comes after it.
        let add = ["filter", "add", "dev", "vmt0", "egress", "prio", "7", "bpf", "direct-action", "bytecode"];
        run_tc(&[&add[..], &["1,6 0 0 2"]].concat());
        lab.tick();
        let frame = Frame::to_guest().udp4(300);
        for _ in 0..5 {
            let refused = PacketSocket::bind("vmt0").unwrap().send(&frame);
            assert!(refused.is_err(), "{way}: theirs drops");
        }
        let (nic, ebpf) = lab.tick_one();
        assert_eq!(ebpf.rx.udp, 5, "{way}: ours counts");
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
            assert_eq!((ebpf.tx.udp, ebpf.rx.udp), (5, 5), "{first} and {second}");
        }
    }
}

#[test]
fn filters_left_by_a_killed_daemon_are_replaced() {
    let mut lab = Lab::attached_by("clsact", 1, TapOptions::default());
    let mut successor = manager_for("clsact", &["vmt0"]);
    successor.collect();
    lab.send(&Frame::from_guest().udp4(300));
    assert_eq!(nics(&mut successor)[0].ebpf.unwrap().tx.udp, 1);
    assert_eq!(lab.tick_one().1.tx.udp, 0, "its filter was replaced");
    let filters = tc("filter show dev vmt0 ingress");
    assert_eq!(filters.matches("handle 0x766d").count(), 1, "{filters}");
}

#[test]
fn programs_that_somebody_takes_off_are_put_back() {
    let mut lab = Lab::attached_by("clsact", 1, TapOptions::default());
    let frame = Frame::from_guest().udp4(300);
    lab.send(&frame);
    assert_eq!(lab.tick_one().1.tx.udp, 1);
    tc("filter del dev vmt0 ingress prio 1");
    let mut sent = 1;
    let found_out = (0..10).any(|_| {
        lab.send(&frame);
        sent += 1;
        lab.tick();
        tc("filter show dev vmt0 ingress").contains("handle 0x766d")
    });
    assert!(found_out, "still off after ten ticks with traffic");
    let (nic, before) = lab.tick_one();
    assert_eq!(nic.tx.packets, Some(sent), "the device's count fills the gap");
    lab.send(&frame);
    let (nic, after) = lab.tick_one();
    assert_eq!((nic.tx.packets, after.tx.udp), (Some(sent + 1), before.tx.udp + 1));
}

pub(crate) fn tc(arguments: &str) -> String {
    run_tc(&arguments.split(' ').collect::<Vec<_>>())
}

/// Runs tc in the namespace of this thread.
pub(crate) fn run_tc(arguments: &[&str]) -> String {
    let output = Command::new("tc").args(arguments).output().unwrap();
    assert!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
