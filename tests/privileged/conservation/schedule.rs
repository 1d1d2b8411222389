//! What happens, step by step: all of it follows from the seed.

use super::chance::Chance;

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
    chance: Chance,
    slots: usize,
}

impl Schedule {
    pub(crate) fn new(seed: u64, slots: usize) -> Self {
        Self { chance: Chance::new(seed), slots }
    }

    /// Steps that do not fit the state of the world are skipped by it.
    pub(crate) fn next(&mut self) -> Step {
        let chance = &mut self.chance;
        let slot = chance.of(0..self.slots);
        match chance.of(0..240) {
            0..60 => Step::Begin { slot, persistent: chance.one_in(3) },
            60..105 => {
                Step::Traffic { slot, frames: chance.one_of(&[1, 3, 20, 100]), threads: chance.of(1..5) }
            }
            105..155 => Step::End { slot, unseen: chance.one_in(8) },
            155..170 => Step::Flash { slot, frames: chance.one_of(&[0, 1, 10]) },
            170..176 => Step::Replace { slot },
            176..182 => Step::Restart { slot },
            182..185 => Step::Kill { patient: !chance.one_in(4) },
            185 => Step::Stop,
            186..208 => Step::Start,
            208..210 => Step::Settle,
            _ => Step::Pause { milliseconds: chance.one_of(&[0, 1, 5, 30]) },
        }
    }
}
