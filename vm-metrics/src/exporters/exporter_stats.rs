//! Counters of the exporters themselves: one exporter writes them, all show them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::model::unix_seconds;

/// The statistics of all exporters of one daemon, or of one meter.
#[derive(Clone, Debug, Default)]
pub struct ExporterStats {
    budgets: Vec<Arc<BudgetStats>>,
    pushes: Option<Arc<PushStats>>,
    /// When their counts were 0; `None` in tests of snapshots only.
    started: Option<SystemTime>,
}

impl ExporterStats {
    /// For exporters that start now.
    pub fn starting() -> Self {
        Self { started: Some(SystemTime::now()), ..Self::default() }
    }

    /// Since when they count, in seconds of Unix time.
    pub(super) fn started(&self) -> Option<f64> {
        self.started.map(unix_seconds)
    }

    /// Adds an exporter with a label budget.
    pub fn add_budget(&mut self, counts: Arc<BudgetStats>) {
        self.budgets.push(counts);
    }

    /// Adds the OTLP exporter, which counts its pushes here.
    pub(super) fn add_pushes(&mut self) -> Arc<PushStats> {
        Arc::clone(self.pushes.get_or_insert_default())
    }

    pub(super) fn budgets(&self) -> impl Iterator<Item = &BudgetStats> {
        self.budgets.iter().map(Arc::as_ref)
    }

    pub(super) fn pushes(&self) -> Option<&PushStats> {
        self.pushes.as_deref()
    }
}

/// How many VMs a label budget has seen.
#[derive(Debug)]
pub struct BudgetStats {
    exporter: &'static str,
    observed: Mutex<Option<usize>>,
    exceeded: AtomicU64,
}

impl BudgetStats {
    pub(super) fn new(exporter: &'static str) -> Self {
        Self { exporter, observed: Mutex::default(), exceeded: AtomicU64::new(0) }
    }

    /// The exporter that has the budget.
    pub fn exporter(&self) -> &'static str {
        self.exporter
    }

    /// `None` before the exporter has shown anything.
    pub fn observed(&self) -> Option<usize> {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn exceeded(&self) -> u64 {
        self.exceeded.load(Ordering::Relaxed)
    }

    pub(super) fn observe(&self, vms: usize) {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner) = Some(vms);
    }

    pub(super) fn exceed(&self) {
        self.exceeded.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the pushes over OTLP ended.
#[derive(Debug, Default)]
pub struct PushStats {
    successes: AtomicU64,
    failures: AtomicU64,
    last_success: Mutex<Option<SystemTime>>,
}

impl PushStats {
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// `None` before the first.
    pub fn last_success(&self) -> Option<SystemTime> {
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "daemon")]
    pub(super) fn succeeded(&self) {
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner) = Some(SystemTime::now());
        self.successes.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "daemon")]
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
