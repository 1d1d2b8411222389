//! Limits the connections that each peer may open per second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::peer::Peer;

/// Connections per second. A scraper opens one per scrape; the rest is for people and scripts.
const RATE: u32 = 100;

/// Connections at once after a quiet period.
const BURST: u32 = 200;

/// Limit of remembered peers; all others share one account.
const MAX_PEERS: usize = 1024;

/// Time that each connection takes of a peer's account.
const COST: Duration = Duration::from_micros(1_000_000 / RATE as u64);

/// Interval of the sweeps for quiet peers.
const SWEEP: Duration = Duration::from_millis(100);

/// Per peer the moment up to which its account is used; it may lie ahead.
#[derive(Debug, Default)]
pub(super) struct Rates {
    used: HashMap<Peer, Instant>,
    swept: Option<Instant>,
}

impl Rates {
    /// Whether the peer may open one more connection now. Root could stop the daemon and is not limited.
    pub(super) fn allow(&mut self, peer: Peer, now: Instant) -> bool {
        if peer == Peer::User(0) {
            return true;
        }
        self.sweep(now);
        let is_known = self.used.contains_key(&peer) || self.used.len() < MAX_PEERS;
        let used = self.used.entry(if is_known { peer } else { Peer::Unknown }).or_insert(now);
        let next = (*used).max(now) + COST;
        let allowed = next <= now + COST * BURST;
        if allowed {
            *used = next;
        }
        allowed
    }

    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.used.len() >= MAX_PEERS && is_due {
            self.used.retain(|_, used| *used > now);
            self.swept = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_held_to_its_rate() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let mut opened = |peer, at| (0..10_000).filter(|_| rates.allow(peer, start + at)).count();
        assert_eq!(opened(Peer::User(7), Duration::ZERO), BURST as usize);
        assert_eq!(opened(Peer::User(7), Duration::from_millis(500)), RATE as usize / 2);
        assert_eq!(opened(Peer::User(8), Duration::from_millis(500)), BURST as usize);
        assert_eq!(opened(Peer::User(7), Duration::from_secs(60)), BURST as usize);
        assert_eq!(opened(Peer::User(0), Duration::ZERO), 10_000);
    }

    #[test]
    fn many_peers_take_little_memory() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let address = |number: u32| Peer::Address(std::net::Ipv4Addr::from(number).into());
        let allowed = (0..100_000).filter(|number| rates.allow(address(*number), now)).count();
        assert!(rates.used.len() <= MAX_PEERS + 1);
        assert_eq!(allowed, MAX_PEERS + BURST as usize);
        let later = now + Duration::from_secs(10);
        assert!(rates.allow(address(7_000_000), later), "quiet peers are forgotten");
    }
}
