//! The CPU time of a tick per VM, beside plain reads, in turns.

use std::time::Duration;

use anyhow::Result;

use super::{Plan, contestant::Contestant, figures::Figures, plain_reads::PlainReads};

/// A rate of ticks, with the prefix of its figures.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    key: &'static str,
    pub interval: Duration,
    /// Daemons of the first rate find no pins.
    pub is_first: bool,
}

pub const RATES: [Rate; 2] = [
    Rate { key: "tick_1hz", interval: Duration::from_secs(1), is_first: true },
    Rate { key: "tick_10hz", interval: Duration::from_millis(100), is_first: false },
];

/// Adds one sample per round and daemon, in microseconds per VM.
pub fn measure(
    figures: &mut Figures,
    plan: &Plan,
    plain_reads: &PlainReads,
    daemons: &[Contestant],
    rate: &Rate,
) -> Result<()> {
    for _ in 0..plan.rounds {
        plain_reads.sample(figures)?;
        for daemon in daemons {
            let cost = daemon.in_turn(|daemon| daemon.tick_cost(plan.window))?;
            let per_vm = cost.as_secs_f64() * 1e6 / f64::from(plan.vms);
            figures.add(format!("{}.{}", rate.key, daemon.name), per_vm);
        }
    }
    Ok(())
}
