//! Runs a daemon's programs on frames of every shape, beside `model`.

mod bench;
mod cases;
mod fuzz;
mod model;

use std::collections::BTreeMap;

use vm_metrics_common::DirectionStats;
use vm_metrics_testkit::frames::VNET_HEADER;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::random::{self, Random};
use vm_metrics_testkit::wait::SOON;

use crate::isolation::figures;

use self::bench::{Bench, CONTINUE, Direction};
use self::cases::cases;

/// The variable with the seed of a failure, to repeat its frames.
const SEED: &str = "TESTKIT_FUZZ_SEED";
/// Number of frames, each of which goes through both programs.
const FUZZED: u32 = 100_000;
/// `BPF_PROG_TEST_RUN` takes a page at most, less the kernel's own part.
const LONGEST: usize = 3000;

#[test]
fn every_frame_goes_on_and_is_counted_exactly() {
    let bench = Bench::new();
    for (what, frame, gso_size, (wire_packets, wire_bytes), others) in cases() {
        let mut expected =
            Counts::from([("packets".to_owned(), 1), ("bytes".to_owned(), frame.len() as u64)]);
        expected.extend([("wire_packets".to_owned(), wire_packets), ("wire_bytes".to_owned(), wire_bytes)]);
        expected.extend(others.iter().map(|other| ((*other).to_owned(), 1)));
        let counted = run_both_ways(&bench, &frame, gso_size);
        let (counted, _) = counted.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        assert_eq!(by_name(&counted), expected, "{what}");
    }
}

#[test]
fn broken_frames_go_on_and_are_counted_exactly() {
    let bench = Bench::new();
    let seed = random::seed(SEED);
    let mut random = Random::new(seed);
    let before = bench.counters();
    let mut all = DirectionStats::default();
    let (mut run, mut number) = (0, 0);
    while run < FUZZED {
        let frame = fuzz::frame(&mut random, LONGEST);
        let gso_size = fuzz::gso_size(&mut random);
        number += 1;
        let (counted, was_run) = run_both_ways(&bench, &frame, gso_size).unwrap_or_else(|wrong| {
            panic!("{SEED}={seed}, frame {number}, GSO {gso_size}: {wrong}\n{frame:02x?}")
        });
        all = sum(&all, &counted);
        run += u32::from(was_run);
        assert!(run >= number / 2, "{SEED}={seed}: the kernel took {run} frames of {number}");
    }
    let after = bench.counters();
    assert_eq!(after.ingress, sum(&before.ingress, &all), "{SEED}={seed}");
    assert_eq!(after.egress, sum(&before.egress, &all), "{SEED}={seed}");
    let published = |metrics: &Metrics| {
        let value = |name| metrics.value(name, &[]).map(|value| value as u64);
        let counted = [value("vm_network_tx_wire_bytes_total"), value("vm_network_rx_offered_bytes_total")];
        (counted == [Some(after.ingress.wire_bytes), Some(after.egress.bytes)]).then_some(())
    };
    bench.daemon.wait_for(SOON, "the daemon to publish it all", published).unwrap();
    // Each kind occurs often enough to reveal an error.
    let counts = by_name(&all);
    assert_eq!(counts.len(), all_by_name(&all).len(), "{SEED}={seed}: {counts:?}");
    assert!(counts.values().all(|count| *count > 500), "{SEED}={seed}: {counts:?}");
    figures(&format!(
        "{run} broken frames through both programs: each went on and was counted exactly (seed {seed})"
    ));
}

/// Beyond a page most of a frame is not linear. Here the guest even declares no header as linear.
#[test]
fn frames_in_pieces_are_counted_exactly() {
    const FRAMES: usize = 3000;
    let bench = Bench::new();
    let seed = random::seed(SEED);
    let mut random = Random::new(seed);
    for number in 0..FRAMES {
        let mut frame = fuzz::frame(&mut random, LONGEST);
        frame.resize(if number == 0 { 65_549 } else { 4096 + random.below(61_440) }, number as u8);
        let linear = 14 + random.below(60) as u16;
        let mut written = vec![0; VNET_HEADER];
        written[2..4].copy_from_slice(&linear.to_ne_bytes());
        written.extend(&frame);

        let before = bench.counters();
        bench.tap.write_frame(&written).unwrap();
        let expected = sum(&before.ingress, &model::counted(&frame, 0));
        assert_eq!(
            bench.counters().ingress,
            expected,
            "{SEED}={seed}, frame {number}: {:02x?}",
            &frame[..120]
        );
    }
}

/// Returns the counters that a frame increments, after a comparison of both directions with the model. A frame that
/// `BPF_PROG_TEST_RUN` rejects goes through the device, without GSO.
fn run_both_ways(bench: &Bench, frame: &[u8], gso_size: u16) -> Result<(DirectionStats, bool), String> {
    let mut before = bench.counters();
    let mut run = false;
    let mut expected = DirectionStats::default();
    for direction in [Direction::Ingress, Direction::Egress] {
        let returned = bench.run(direction, frame, gso_size);
        run = returned.is_some();
        expected = model::counted(frame, if run { gso_size } else { 0 });
        if !run {
            bench.carry(direction, frame);
        }
        let mut after = before;
        match direction {
            Direction::Ingress => after.ingress = sum(&before.ingress, &expected),
            Direction::Egress => after.egress = sum(&before.egress, &expected),
        }
        let counted = bench.counters();
        if returned.is_some_and(|returned| returned != CONTINUE) || counted != after {
            return Err(format!(
                "returned {returned:?} and made\n{counted:?} of\n{before:?}, and not\n{after:?}"
            ));
        }
        before = after;
    }
    Ok((expected, run))
}

/// The counters that are not zero.
type Counts = BTreeMap<String, u64>;

fn by_name(stats: &DirectionStats) -> Counts {
    let mut counts = all_by_name(stats);
    counts.retain(|_, count| *count > 0);
    counts
}

fn all_by_name(stats: &DirectionStats) -> Counts {
    serde_json::from_value(serde_json::to_value(stats).unwrap()).unwrap()
}

fn sum(one: &DirectionStats, other: &DirectionStats) -> DirectionStats {
    one.zip_with(*other, |one, other| one + other, |one, other| one + other)
}
