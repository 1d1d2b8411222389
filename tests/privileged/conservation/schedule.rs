//! What happens, step by step: all of it follows from the seed.

use vm_metrics_testkit::random::Random;

/// One thing that happens. `slot` is a VM and its device; see `world`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A VM starts, with a device that stays when nobody holds it, or with one that goes.
    Begin {
        slot: usize,
        persistent: bool,
    },
    /// Threads move so many frames each way, each of them.
    Traffic {
        slot: usize,
        frames: u64,
        threads: usize,
    },
    /// A VM ends and its device goes, under traffic if there is some. While no daemon runs only where `unseen` says so.
    End {
        slot: usize,
        unseen: bool,
    },
    /// A device comes and goes within a millisecond or so.
    Flash {
        slot: usize,
        frames: u64,
    },
    /// A device goes and another takes its name at once.
    Replace {
        slot: usize,
    },
    /// A VM ends and starts again, and its device stays meanwhile.
    Restart {
        slot: usize,
    },
    /// The daemon is killed; first it may say what it knows.
    Kill {
        patient: bool,
    },
    /// The daemon is asked to leave.
    Stop,
    Start,
    /// Nothing moves until all that was written is shown.
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

    /// Steps that do not fit the state of the world are skipped by it.
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
