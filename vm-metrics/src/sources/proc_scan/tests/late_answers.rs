//! Processes whose answers come too late, as on a busy machine.

use std::sync::{Mutex, mpsc};
use std::thread;

use super::*;
use crate::sources::proc_scan::queries::QuickQuery;

const STRANGER: u32 = 65534;

/// Until the sender is dropped, these queries about this process have no answer.
fn delay(scan: &mut ProcScan, pid: u32, is_late: fn(&ProcessQuery) -> bool) -> mpsc::Sender<()> {
    let (release, hanging) = mpsc::channel::<()>();
    let hanging = Mutex::new(hanging);
    let read = move |query: (Arc<Observer>, u32, ProcessQuery)| {
        if query.1 == pid && is_late(&query.2) {
            let _ = hanging.lock().unwrap().recv();
        }
        queries::answer(query)
    };
    scan.patient = Patient::new("scan", PATIENCE, read).with_patience_for_others(PATIENCE_FOR_OTHERS);
    release
}

/// Names in files give TAPs to trusted users only. So the VMs are found as trusted ones, and settle.
#[test]
fn a_late_answer_gives_no_child_a_tap() {
    const VM: Fake = Fake { uid: STRANGER, taps: &[(3, "tap0")], ..Fake::QEMU };
    const CHILD: Fake = Fake { pid: 101, ppid: 100, start: 6000, args: "kvm -name two", ..VM };
    let fixture = Fixture::with(&[VM, CHILD]);
    let mut scan = ProcScan::new(&fixture.context_trusting(Trust::only([STRANGER])));
    list(&mut scan, START);
    scan.trust = Trust::default();
    let _release = delay(&mut scan, 100, |query| matches!(query, ProcessQuery::Held { .. }));
    let vms = list(&mut scan, YOUNG + TICK);
    assert_eq!((ids(&vms), taps(&vms[0])), (vec!["web"], vec!["tap0"]));
}

#[test]
fn a_parent_is_known_after_a_late_answer() {
    let child = Fake { pid: 101, ppid: 100, uid: STRANGER, ..Fake::QEMU };
    let fixture = Fixture::with(&[Fake::QEMU, child]);
    let mut scan = fixture.scan();
    let is_origin = |query: &ProcessQuery| matches!(query, ProcessQuery::Quick(QuickQuery::Origin));
    let release = delay(&mut scan, 101, is_origin);
    list(&mut scan, START);
    assert_eq!(scan.processes[&101].parent, None);
    drop(release);
    while scan.patient.stuck() > 0 {
        thread::yield_now();
    }
    let is_known = (1..30).any(|second| {
        list(&mut scan, second * TICK);
        scan.processes[&101].parent == Some(100)
    });
    assert!(is_known);
}
