//! Makes one published counter of two sources.
//!
//! The device counts from the birth of the TAP, and eBPF from its attach. The published counter is `base + counted`,
//! where the base is the device's count before the attach. Readers read the device before eBPF, so `device - counted`
//! never exceeds the true base. It equals the base at the first quiet moment, so the greatest difference seen is the
//! base. A counter may lag by frames in flight, and never runs ahead.

/// One published counter.
#[derive(Debug, Default)]
pub(in crate::manager) struct StitchedCounter {
    base: u64,
    published: u64,
}

impl StitchedCounter {
    /// The value to publish; `None` when neither source has one. `device` was read before `counted`.
    pub(in crate::manager) fn update(&mut self, device: Option<u64>, counted: Option<u64>) -> Option<u64> {
        if let (Some(device), Some(counted)) = (device, counted) {
            self.base = self.base.max(device.saturating_sub(counted));
        }
        let now = counted.map(|counted| self.base.saturating_add(counted)).or(device)?;
        self.published = self.published.max(now);
        Some(self.published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counting_goes_on_from_the_device() {
        let mut bytes = StitchedCounter::default();
        assert_eq!(bytes.update(Some(1000), None), Some(1000));
        assert_eq!(bytes.update(Some(1000), Some(0)), Some(1000));
        assert_eq!(bytes.update(Some(1500), Some(500)), Some(1500));
        assert_eq!(bytes.update(None, Some(700)), Some(1700));
        assert_eq!(bytes.update(Some(1700), None), Some(1700));
        assert_eq!(bytes.update(None, None), None);
    }

    #[test]
    fn frames_between_readings_count_once() {
        let mut bytes = StitchedCounter::default();
        // 100 arrived before the attach; 40 more between the reading of the device and that of eBPF.
        assert_eq!(bytes.update(Some(100), Some(40)), Some(100));
        assert_eq!(bytes.update(Some(140), Some(40)), Some(140));
        assert_eq!(bytes.update(Some(140), Some(40)), Some(140));
    }

    proptest! {
        /// With any arrivals between the readings and any failing source: never falling, never ahead, exact when quiet.
        #[test]
        fn monotone_and_never_ahead(
            before in 0_u64..1000,
            steps in prop::collection::vec((0_u64..100, 0_u64..100, any::<bool>(), any::<bool>()), 1..50),
        ) {
            let (mut total, mut last) = (before, 0);
            let mut counter = StitchedCounter::default();
            for (arrives, arrives_between, device_works, ebpf_works) in steps {
                total += arrives;
                let device = device_works.then_some(total);
                total += arrives_between;
                let counted = ebpf_works.then_some(total - before);
                if let Some(published) = counter.update(device, counted) {
                    prop_assert!(published >= last && published <= total);
                    last = published;
                }
            }
            prop_assert_eq!(counter.update(Some(total), Some(total - before)), Some(total));
        }
    }
}
