//! Counters of a process go on when its VM gets another id.

use super::*;

/// A counter of the process.
const READ: &str = "disk_read_bytes_total";

fn process(id: usize, pid: u32, start: u32, read: u64) -> VmStats {
    VmStats {
        hypervisor_pid: Some(pid),
        start_time: Some(start.into()),
        process: ProcessStats { disk_read_bytes: Some(read), ..ProcessStats::default() },
        ..vm(id, 0, 0)
    }
}

#[test]
fn a_renamed_process_is_counted_once() {
    let mut budget = aggregate(1);
    let top = |tx| VmStats { nics: vm(0, 0, tx).nics, ..process(0, 70, 1, 0) };
    let first = fit(&mut budget, 1, vec![top(1000), process(1, 71, 1, 500)]);
    assert_eq!(values(&first, READ)[OTHER], 500.0);
    let renamed = fit(&mut budget, 2, vec![top(2000), process(2, 71, 1, 510)]);
    assert_eq!(values(&renamed, READ)[OTHER], 510.0);
    let unread = VmStats { start_time: None, ..process(1, 71, 1, 520) };
    let back = fit(&mut budget, 3, vec![top(3000), unread]);
    assert_eq!(values(&back, READ)[OTHER], 520.0);
    let another = fit(&mut budget, 4, vec![top(4000), process(1, 71, 2, 530)]);
    assert_eq!(values(&another, READ)[OTHER], 1050.0, "the pid is used again");
    let gone = VmStats { running: false, ..process(3, 71, 2, 530) };
    let two = fit(&mut budget, 5, vec![top(5000), process(1, 71, 3, 10), gone]);
    assert_eq!(values(&two, READ)[OTHER], 1060.0, "and once more");
}

#[test]
fn a_restarted_vm_begins_anew() {
    let mut budget = aggregate(2);
    for (tick, start, read) in [(1, 1, 100), (2, 1, 150), (3, 2, 7), (4, 2, 9)] {
        let shown = fit(&mut budget, tick, vec![process(0, 70 + start, start, read)]);
        assert_eq!(values(&shown, READ)["vm-0"], read as f64);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Counts(u64),
    /// A new process, which may have counted more than the last.
    Restarts(u64),
    Unread,
    Gone,
    /// Has the id of another, who has its id from now on, or one that is free.
    Takes(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..1000_u64).prop_map(Event::Counts),
        1 => (0..1000_u64).prop_map(Event::Restarts),
        1 => Just(Event::Unread),
        1 => Just(Event::Gone),
        2 => (0..9_usize).prop_map(Event::Takes),
    ]
}

proptest! {
    #[test]
    fn all_series_add_up_whatever_the_ids(
        limit in 1..4_usize,
        looks in prop::collection::vec(prop::collection::vec(event(), 6), 1..40),
    ) {
        let mut budget = aggregate(limit);
        let (mut truth, mut shown) = (Database::default(), Database::default());
        let (mut reads, mut starts) = ([0_u64; 6], [1_u32; 6]);
        let mut ids: Vec<usize> = (0..9).collect();
        let mut rest = 0.0;
        for (tick, events) in (1..).zip(&looks) {
            for (slot, event) in events.iter().enumerate() {
                match event {
                    Event::Counts(bytes) => reads[slot] += bytes,
                    Event::Restarts(bytes) => {
                        reads[slot] = *bytes;
                        starts[slot] += 1;
                    }
                    Event::Takes(other) => ids.swap(slot, *other),
                    Event::Unread | Event::Gone => {}
                }
            }
            let mut vms = Vec::new();
            for (slot, event) in events.iter().enumerate().filter(|(_, event)| !matches!(event, Event::Gone)) {
                let mut vm = process(ids[slot], slot as u32 + 70, starts[slot], reads[slot]);
                if matches!(event, Event::Unread) {
                    (vm.start_time, vm.process.disk_read_bytes) = (None, None);
                } else {
                    truth.read(&[slot.to_string(), starts[slot].to_string()], reads[slot] as f64);
                }
                vms.push(vm);
            }
            let families = fit(&mut budget, tick, vms);
            for Sample { labels, value, .. } in &family(&families, READ).samples {
                let value = &value.as_f64();
                shown.read(labels, *value);
                if labels[0] == OTHER {
                    prop_assert!(*value >= rest);
                    rest = *value;
                }
            }
            prop_assert_eq!(shown.total, truth.total);
        }
    }
}
