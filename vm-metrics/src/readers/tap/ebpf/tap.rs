//! A TAP with the programs on it, and whether they are bypassed.

use std::time::{Instant, SystemTime};

use vm_metrics_common::Counters;

use super::direction::Direction;
use super::hook::attached::AttachedPrograms;
use crate::model::{DeviceId, EbpfReading, TapReading, unix_seconds};

/// Ticks in which the programs may be bypassed before they are attached again.
const MAX_BYPASSED_TICKS: u32 = 1;

/// A TAP with the programs on it.
pub(crate) struct Tap {
    /// `None` while no VM had it.
    pub(crate) device: Option<DeviceId>,
    pub(crate) slot: u32,
    pub(crate) attached: AttachedPrograms,
    /// When that was, in seconds of Unix time; `None` where a daemon before this one has done it.
    since: Option<f64>,
    pub(crate) wanted: Instant,
    detectors: [BypassDetector; 2],
    /// Before this they are not attached once more. An XDP program that keeps all frames bypasses them, too.
    pub(crate) reattach_at: Instant,
    /// Before this the kernel is not asked again whether the egress program is on.
    pub(crate) verify_egress_at: Instant,
}

/// What one of the programs sees of what passes.
#[derive(Clone, Copy, Debug, Default)]
struct BypassDetector {
    /// Packets that the device had counted and that the program had at the last tick, if there was one.
    seen: Option<(u64, u64)>,
    bypassed_ticks: u32,
}

impl BypassDetector {
    /// Whether the device has counted in more than one tick, and the program in none since.
    fn is_bypassed(&mut self, device: u64, counted: u64) -> bool {
        match self.seen.replace((device, counted)) {
            Some((before, same)) if same == counted => self.bypassed_ticks += u32::from(device > before),
            _ => self.bypassed_ticks = 0,
        }
        self.bypassed_ticks > MAX_BYPASSED_TICKS
    }
}

impl Tap {
    pub(crate) fn new(device: Option<DeviceId>, slot: u32, attached: AttachedPrograms) -> Self {
        let (now, detectors) = (Instant::now(), Default::default());
        Self {
            device,
            slot,
            attached,
            since: None,
            wanted: now,
            detectors,
            reattach_at: now,
            verify_egress_at: now,
        }
    }

    /// Its counters are at 0.
    pub(crate) fn since_now(self) -> Self {
        Self { since: Some(unix_seconds(SystemTime::now())), ..self }
    }

    /// What was read of its counters, with what is known of the TAP.
    pub(crate) fn complete(&self, reading: EbpfReading) -> EbpfReading {
        EbpfReading { since: self.since, ..reading }
    }

    /// Which of the programs does not see what passes, if one does not. The device was read before the counters.
    ///
    /// What the guest takes may have been offered long ago, so about egress this is no more than a doubt.
    pub(crate) fn bypassed(&mut self, device: Option<&TapReading>, counters: &Counters) -> Option<Direction> {
        let device = &device?.stats;
        let [ingress, egress] = &mut self.detectors;
        let ingress = ingress.is_bypassed(device.rx_packets, counters.ingress.packets);
        let egress = egress.is_bypassed(device.tx_packets, counters.egress.packets);
        if ingress { Some(Direction::Ingress) } else { egress.then_some(Direction::Egress) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_missed_ticks_mean_bypassed() {
        let mut detector = BypassDetector::default();
        let mut is_bypassed = |device, counted| detector.is_bypassed(device, counted);
        assert!(!is_bypassed(100, 0), "it has just come");
        assert!(!is_bypassed(103, 0), "before the attach");
        assert!(!is_bypassed(103, 0));
        assert!(!is_bypassed(105, 2));
        assert!(!is_bypassed(106, 2));
        assert!(!is_bypassed(106, 2), "nothing has passed");
        assert!(is_bypassed(107, 2));
        assert!(!is_bypassed(108, 3));
    }
}
