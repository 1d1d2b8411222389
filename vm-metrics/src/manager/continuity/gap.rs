//! Counts frames that passed a device unseen by the programs on it.
//!
//! They passed before the programs were attached, or while they were off. The device is read before the programs, so
//! `device - seen` never exceeds the missed frames. It is exact at the first quiet moment; the greatest difference
//! counts, as in `stitched`.

/// Of one direction.
#[derive(Debug, Default)]
pub(in crate::manager) struct Gap {
    /// The programs' count before they were attached anew, which makes them count from 0.
    earlier: u64,
    counted: u64,
    missed: u64,
    /// Missed frames of former owners.
    of_others: u64,
}

impl Gap {
    /// Returns the missed frames of this owner; `None` without both counts.
    pub(in crate::manager) fn update(&mut self, device: Option<u64>, counted: Option<u64>) -> Option<u64> {
        let (device, counted) = device.zip(counted)?;
        if counted < self.counted {
            self.earlier += self.counted;
        }
        self.counted = counted;
        self.missed = self.missed.max(device.saturating_sub(self.earlier.saturating_add(counted)));
        Some(self.missed - self.of_others)
    }

    pub(super) fn hand_over(&mut self) {
        self.of_others = self.missed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_did_not_see_is_missed() {
        let mut gap = Gap::default();
        assert_eq!(gap.update(Some(100), None), None, "they are not there yet");
        assert_eq!(gap.update(Some(100), Some(0)), Some(100));
        assert_eq!(gap.update(Some(140), Some(45)), Some(100), "five between the two readings");
        assert_eq!(gap.update(Some(150), Some(45)), Some(105), "they were off");
        assert_eq!(gap.update(Some(160), Some(0)), Some(115), "attached anew");
        assert_eq!(gap.update(Some(170), Some(10)), Some(115));
        gap.hand_over();
        assert_eq!(gap.update(Some(180), Some(20)), Some(0), "the next owner's");
        assert_eq!(gap.update(Some(190), Some(20)), Some(10));
    }
}
