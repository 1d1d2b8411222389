//! What is known of one TAP with the programs on it.

use std::time::Instant;

use vm_metrics_common::Counters;

use super::attach::Attached;
use crate::model::{Nic, NicKind, TapReading};

/// Ticks in which the programs may be blind before they are taken for lost.
const MAX_BLIND_TICKS: u32 = 1;

/// A TAP with the programs on it.
pub(super) struct Tap {
    /// Its name at the last tick.
    pub(super) nic: Nic,
    pub(super) kind: NicKind,
    pub(super) slot: u32,
    pub(super) attached: Attached,
    pub(super) wanted: Instant,
    /// Packets that the device had received and that the programs had counted at the last tick.
    seen: (u64, u64),
    blind_ticks: u32,
    /// Before this they are not put back once more: an XDP program that keeps all frames to itself makes them blind too.
    pub(super) put_back_at: Instant,
}

impl Tap {
    pub(super) fn new(nic: Nic, slot: u32, attached: Attached) -> Self {
        let now = Instant::now();
        let kind = NicKind::default();
        Self { nic, kind, slot, attached, wanted: now, seen: (0, 0), blind_ticks: 0, put_back_at: now }
    }

    pub(super) fn of_kind(self, kind: NicKind) -> Self {
        Self { kind, ..self }
    }

    /// Whether somebody has taken the programs off: the device goes on receiving, for more than one tick, and they do not
    /// count. The device was read before the counters.
    pub(super) fn is_lost(&mut self, device: Option<&TapReading>, counters: &Counters) -> bool {
        let Some(device) = device else { return false };
        let now = (device.stats.rx_packets, counters.ingress.packets);
        let (received, counted) = std::mem::replace(&mut self.seen, now);
        self.blind_ticks = if now.0 > received && now.1 == counted { self.blind_ticks + 1 } else { 0 };
        self.blind_ticks > MAX_BLIND_TICKS
    }
}
