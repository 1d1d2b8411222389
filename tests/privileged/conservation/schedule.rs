//! Draws the steps of a schedule from a seed.

use vm_metrics_testkit::random::Random;

/// One step. `slot` is a VM and its device, see `world`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A VM starts. A persistent device stays without a holder, any other goes.
    Begin {
        slot: usize,
        persistent: bool,
    },
    /// Each thread moves so many frames in each direction.
    Traffic {
        slot: usize,
        frames: u64,
        threads: usize,
    },
    /// A VM ends and its device goes, possibly under traffic. Without a daemon only if `unseen`.
    End {
        slot: usize,
        unseen: bool,
    },
    /// A device lives for about a millisecond.
    Flash {
        slot: usize,
        frames: u64,
    },
    /// A new device takes the name of a deleted one at once.
    Replace {
        slot: usize,
    },
    /// A VM restarts, and its device stays.
    Restart {
        slot: usize,
    },
    /// SIGKILL ends the daemon. If `patient`, it first publishes the final counters.
    Kill {
        patient: bool,
    },
    /// SIGTERM stops the daemon.
    Stop,
    Start,
    /// Traffic pauses until the daemon published all of it.
    Settle,
    Pause {
        milliseconds: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Schedule {
    random: Random,
    slots: usize,
}

impl Schedule {
    pub(crate) fn new(seed: u64, slots: usize) -> Self {
        Self { random: Random::new(seed), slots }
    }

    /// Returns the next step. The world skips steps that do not fit its state.
    pub(crate) fn next(&mut self) -> Step {
        let random = &mut self.random;
        let slot = random.of(0..self.slots);
        match random.of(0..240) {
            0..60 => Step::Begin { slot, persistent: random.one_in(3) },
            60..105 => {
                Step::Traffic { slot, frames: random.one_of(&[1, 3, 20, 100]), threads: random.of(1..5) }
            }
            105..155 => Step::End { slot, unseen: random.one_in(8) },
            155..170 => Step::Flash { slot, frames: random.one_of(&[0, 1, 10]) },
            170..176 => Step::Replace { slot },
            176..182 => Step::Restart { slot },
            182..185 => Step::Kill { patient: !random.one_in(4) },
            185 => Step::Stop,
            186..208 => Step::Start,
            208..210 => Step::Settle,
            _ => Step::Pause { milliseconds: random.one_of(&[0, 1, 5, 30]) },
        }
    }
}
