//! Reproducible random numbers: one seed determines a whole test.

use std::env;
use std::ops::Range;
use std::time::SystemTime;

/// The generator SplitMix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    pub fn of(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }

    /// Returns true with a probability of 1 in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// The seed in this environment variable, or a new one.
pub fn seed(variable: &str) -> u64 {
    let given = env::var(variable).ok().map(|seed| seed.parse().expect("the seed is a number"));
    given.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64))
}
