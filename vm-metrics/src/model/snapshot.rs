//! What one tick publishes: immutable, shared by every exporter.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Lifecycle, Overuse, VmStats};

/// Everything that was known at the end of one tick.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// 1 for the first tick.
    pub tick: u64,
    pub taken: Instant,
    pub taken_at: SystemTime,
    /// When the daemon's own counters were 0.
    pub counting_since: SystemTime,
    pub tick_duration: Duration,
    /// Of all ticks together.
    pub ticks_duration: Duration,
    pub missed: MissedTicks,
    pub vms: Vec<VmStats>,
    /// How many have come and gone.
    pub lifecycle: Lifecycle,
    pub components: Vec<ComponentRun>,
    /// What users have left behind beyond their share, so that it was forgotten in this tick.
    pub overuse: Vec<Overuse>,
}

/// Ticks that began late, because the one before took longer than the interval or the whole daemon stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissedTicks {
    pub ticks: u64,
    /// All of them together.
    pub by: Duration,
}

/// What a part of the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    Source,
    Reader,
    Manager,
}

/// How a part did in one tick.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentRun {
    pub kind: ComponentKind,
    pub name: &'static str,
    pub health: ComponentHealth,
    /// `None` when it did not run.
    pub duration: Option<Duration>,
    /// Things it read or found.
    pub items: usize,
    /// Things it could not read in this tick.
    pub errors: usize,
    /// Those of the errors that say that something is not there, which is no fault of the part.
    pub absent: usize,
    /// How often since its start the kernel had more to say than it could hear; `None` where it does not listen.
    pub lost: Option<u64>,
    /// Whether what counts stays when the daemon leaves; `None` where nothing could stay.
    pub pinned: Option<bool>,
    /// What users asked for beyond their share in this tick.
    pub overuse: Vec<Overuse>,
    /// This tick and all before it.
    pub totals: ComponentTotals,
}

/// How a part has done since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComponentTotals {
    /// Ticks in which it ran.
    pub runs: u64,
    /// All of them together.
    pub duration: Duration,
    /// Things it could not read.
    pub errors: u64,
}

impl ComponentTotals {
    /// With one tick more.
    pub(crate) fn add(&mut self, run: &ComponentRun) {
        self.runs += u64::from(run.duration.is_some());
        self.duration += run.duration.unwrap_or_default();
        self.errors += run.errors as u64;
    }
}

impl ComponentRun {
    /// It read or found all there is.
    pub fn is_complete(&self) -> bool {
        match self.health.state {
            Health::Healthy => true,
            Health::Starting | Health::Degraded => self.errors == self.absent,
            Health::Disabled | Health::Unsupported | Health::Failed => false,
        }
    }
}

/// Whether a part works, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentHealth {
    pub state: Health,
    /// In a sentence; empty when healthy, unless there is something to know.
    pub reason: String,
    /// The error number of the kernel, where there was one.
    pub errno: Option<i32>,
    /// Whether the log warns of it, though the part does all it can.
    pub warns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Switched off by configuration.
    Disabled,
    Healthy,
    /// Works, and is not yet done with what it found at the start.
    Starting,
    /// Works, but not for everything.
    Degraded,
    /// This host or this build cannot do it.
    Unsupported,
    /// Should work and does not.
    Failed,
}

impl Health {
    pub const ALL: [Self; 6] =
        [Self::Disabled, Self::Healthy, Self::Starting, Self::Degraded, Self::Unsupported, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Degraded => "degraded",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

impl ComponentKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Reader => "reader",
            Self::Manager => "manager",
        }
    }
}

impl ComponentHealth {
    pub fn healthy() -> Self {
        Self { state: Health::Healthy, reason: String::new(), errno: None, warns: false }
    }

    pub fn new(state: Health, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into(), errno: None, warns: false }
    }

    pub fn with_warning(mut self, warns: bool) -> Self {
        self.warns = warns;
        self
    }

    pub fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }
}
