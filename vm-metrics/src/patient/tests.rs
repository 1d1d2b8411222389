//! Hung and slow reads of one user delay no other user.

use std::sync::mpsc::{Sender, channel};

use vm_metrics_testkit::wait::{Deadline, SOON};

use super::patience::MAX_HUNG_IN_A_ROUND;
use super::worker::TIME_OF_STRANGERS;
use super::*;

const PATIENCE: Duration = Duration::from_millis(400);

/// Hangs at the number of a process from 100 on, until the sender is dropped; else answers twice the number.
fn doubler() -> (Patient<u32, u32>, Sender<()>) {
    let (release, hanging) = channel::<()>();
    let hanging = Mutex::new(hanging);
    let read = move |number: u32| {
        if number >= 100 {
            let _ = hanging.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        number * 2
    };
    (Patient::new("doubler", PATIENCE, read), release)
}

fn job(pid: u32, uid: u32) -> Job<u32> {
    Job { pid, uid: Some(uid), is_trusted: uid == 0, question: pid }
}

fn asked(patient: &mut Patient<u32, u32>, jobs: &[(u32, u32)]) -> Vec<Option<u32>> {
    patient.each(jobs.iter().map(|(pid, uid)| job(*pid, *uid)).collect())
}

#[test]
fn answers_keep_the_order_of_the_jobs() {
    let (mut patient, _release) = doubler();
    for _ in 0..3 {
        assert_eq!(asked(&mut patient, &[(3, 1), (1, 0), (2, 1)]), [Some(6), Some(2), Some(4)]);
    }
    assert_eq!(asked(&mut patient, &[]), []);
}

#[test]
fn one_that_hangs_holds_up_no_other() {
    let (mut patient, release) = doubler();
    let jobs = [(100, 7), (1, 7), (2, 8), (3, 0)];
    for _ in 0..2 {
        assert_eq!(asked(&mut patient, &jobs), [None, Some(2), Some(4), Some(6)]);
    }
    assert_eq!(patient.stuck(), 1);
    drop(release);
    let mut deadline = Deadline::after(SOON);
    while patient.stuck() > 0 {
        assert!(!deadline.has_passed(), "the thread has not returned");
        thread::yield_now();
    }
    assert_eq!(asked(&mut patient, &jobs), [Some(200), Some(2), Some(4), Some(6)]);
}

#[test]
fn a_user_with_hung_processes_is_skipped() {
    let (mut patient, _release) = doubler();
    let jobs: Vec<(u32, u32)> = (100..120).map(|pid| (pid, 7)).chain([(1, 7), (2, 8), (3, 0)]).collect();
    for _ in 0..MAX_STUCK_OF_USER {
        let answers = asked(&mut patient, &jobs);
        assert_eq!(answers[21..], [Some(4), Some(6)]);
    }
    assert_eq!(patient.stuck(), MAX_STUCK_OF_USER);
    let answers = asked(&mut patient, &jobs);
    assert_eq!(answers[20..], [None, Some(4), Some(6)]);
    assert_eq!(patient.stuck(), MAX_STUCK_OF_USER);
}

#[test]
fn slow_reads_of_a_user_are_spread_out() {
    let read = |number: u32| {
        if number >= 100 {
            thread::sleep(TIME_OF_STRANGERS / 4);
        }
        number * 2
    };
    let mut patient = Patient::new("slow", Duration::from_secs(10), read);
    let jobs: Vec<(u32, u32)> = (100..120).map(|pid| (pid, 7)).chain([(1, 8), (2, 0)]).collect();
    let mut answered = HashSet::new();
    for _ in 0..40 {
        let answers = asked(&mut patient, &jobs);
        assert_eq!(answers[20..], [Some(2), Some(4)]);
        assert!(answers.iter().flatten().count() <= 6);
        answered.extend(answers.into_iter().flatten());
        let over = patient.take_overuse().into_list();
        assert!(over.iter().all(|over| over.uid == Some(7)) && over[0].count >= 16, "{over:?}");
    }
    assert_eq!(answered.len(), 22, "each has its turn");
}

#[test]
fn a_hung_read_reports_its_duration() {
    let (patient, _release) = doubler();
    let mut patient = patient.with_patience_for_others(PATIENCE / 8);
    let replies = patient.ask(vec![job(100, 7), job(1, 7)]);
    assert!(replies[0].answer.is_none() && replies[0].took >= PATIENCE / 8, "{replies:?}");
    assert_eq!(replies[1].answer, Some(2));
}

#[test]
fn a_round_waits_for_so_many_reads() {
    let (patient, _release) = doubler();
    let mut patient = patient.with_patience_for_others(PATIENCE / 8);
    for pid in 100..100 + MAX_HUNG_IN_A_ROUND {
        assert!(patient.ask(vec![job(pid, pid)])[0].took > Duration::ZERO, "{pid}");
    }
    let replies = patient.ask(vec![job(1, 8), job(2, 0)]);
    assert_eq!((replies[0].answer, replies[1].answer), (None, Some(4)), "trusted users go on");
    patient.begin_round();
    assert_eq!(patient.ask(vec![job(1, 8)])[0].answer, Some(2));
}

#[test]
fn what_returns_late_answers_no_later_call() {
    let (mut patient, release) = doubler();
    assert_eq!(asked(&mut patient, &[(100, 7)]), [None]);
    drop(release);
    assert_eq!(asked(&mut patient, &[(1, 7)]), [Some(2)]);
}
