//! Chooses the VMs with series of their own: those with the most traffic.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::OTHER;
use crate::model::VmStats;

/// Weight of the latest traffic in the mean.
const LATEST: f64 = 0.3;

/// How many times the traffic of the least of the top a VM needs to take its place. Two VMs with about the same traffic
/// would else change places at every snapshot.
const PLAINLY_MORE: f64 = 2.0;

#[derive(Debug)]
pub(super) struct Members {
    limit: usize,
    inside: HashSet<String>,
    traffic: HashMap<String, Traffic>,
}

/// Bytes through all NICs of a VM, both directions.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    total: u64,
    /// Mean growth from one snapshot to the next.
    mean: f64,
}

impl Members {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, inside: HashSet::new(), traffic: HashMap::new() }
    }

    /// Counts from the next [`update`](Self::update) on.
    #[cfg(feature = "otel")]
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.inside.contains(id)
    }

    pub(super) fn update(&mut self, vms: &[VmStats]) {
        self.traffic = vms.iter().map(|vm| (vm.instance_id.clone(), self.measure(vm))).collect();
        self.inside.retain(|id| self.traffic.contains_key(id));
        self.keep_to_limit();
        // Its series would be taken for that of the rest.
        let candidates = self.traffic.keys().filter(|id| *id != OTHER && !self.inside.contains(*id));
        let mut outside: Vec<String> = candidates.cloned().collect();
        // The busiest last.
        outside.sort_by(|a, b| self.compare(a, b));
        while self.inside.len() < self.limit
            && let Some(id) = outside.pop()
        {
            self.inside.insert(id);
        }
        self.replace_the_least(outside);
    }

    /// Those with the least traffic leave when the limit has become lower.
    fn keep_to_limit(&mut self) {
        if self.inside.len() <= self.limit {
            return;
        }
        let mut inside: Vec<String> = self.inside.drain().collect();
        inside.sort_by(|a, b| self.compare(b, a));
        inside.truncate(self.limit);
        self.inside = inside.into_iter().collect();
    }

    fn replace_the_least(&mut self, mut outside: Vec<String>) {
        let mut inside: Vec<String> = self.inside.iter().cloned().collect();
        // The least last.
        inside.sort_by(|a, b| self.compare(b, a));
        while let (Some(least), Some(most)) = (inside.pop(), outside.pop()) {
            if self.mean(&most) <= self.mean(&least) * PLAINLY_MORE {
                break;
            }
            self.inside.remove(&least);
            self.inside.insert(most);
        }
    }

    fn measure(&self, vm: &VmStats) -> Traffic {
        let bytes = vm.nics.iter().flat_map(|nic| [nic.rx.bytes, nic.tx.bytes]);
        let total = bytes.flatten().fold(0_u64, u64::saturating_add);
        match self.traffic.get(&vm.instance_id) {
            None => Traffic { total, mean: 0.0 },
            Some(before) => {
                // A counter that began anew has grown by its whole count.
                let added = total.checked_sub(before.total).unwrap_or(total);
                Traffic { total, mean: before.mean * (1.0 - LATEST) + added as f64 * LATEST }
            }
        }
    }

    fn mean(&self, id: &str) -> f64 {
        self.traffic.get(id).map_or(0.0, |traffic| traffic.mean)
    }

    /// By the current traffic, then by the total, which is the only number at the first snapshot.
    fn compare(&self, a: &str, b: &str) -> Ordering {
        let key = |id: &str| self.traffic.get(id).copied().unwrap_or_default();
        let (of_a, of_b) = (key(a), key(b));
        of_a.mean.total_cmp(&of_b.mean).then(of_a.total.cmp(&of_b.total)).then(b.cmp(a))
    }
}
