//! The snapshot as JSON documents, for the API and for `vm-metrics snapshot --json`.
//!
//! The names are those of [`VmStats`]; the network's begin with `network_`. A number without a measurement is `null`.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{ComponentKind, ComponentRun, Health, Snapshot, VmStats};

/// The detail of errors in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// For administrators of the host: the whole error.
    Full,
    /// For everyone who can connect: errors name paths and quote files, so only their number is shown.
    Counts,
}

/// All VMs of one snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub struct Vms<'s> {
    /// 1 for the first snapshot since the start.
    pub tick: u64,
    /// Time of the readings (RFC 3339).
    #[schema(format = DateTime)]
    pub taken_at: String,
    pub vms: Vec<Vm<'s>>,
}

/// The usage of one VM at one tick. Network numbers are the guest's: rx is its input, tx its output.
#[derive(Debug, Serialize, ToSchema)]
pub struct Vm<'s> {
    #[serde(flatten)]
    pub stats: &'s VmStats,
    /// CPU time of the hypervisor process in seconds, user and system, all threads.
    pub cpu_seconds: Option<f64>,
    /// RSS / allocated memory; may exceed 1.
    pub memory_utilization_ratio: Option<f64>,
}

/// The health of the daemon.
#[derive(Debug, Serialize, ToSchema)]
pub struct DaemonHealth<'s> {
    /// The version of the daemon.
    pub version: &'static str,
    /// Whether ticks end in time.
    pub healthy: bool,
    pub tick: u64,
    /// Age of the numbers.
    pub snapshot_age_seconds: f64,
    pub ticks_late: u64,
    /// Duration of the last tick.
    pub tick_duration_seconds: f64,
    pub parts: Vec<Component<'s>>,
}

/// One source or reader.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Part)]
pub struct Component<'s> {
    pub kind: ComponentKind,
    pub name: &'s str,
    pub state: Health,
    /// The reason for a bad state, in a sentence; over TCP only the number of problems.
    pub reason: Option<Cow<'s, str>>,
    /// The error number of the kernel, if there is one; not over TCP.
    pub errno: Option<i32>,
    /// Its duration in the last tick.
    pub duration_seconds: Option<f64>,
    /// VMs that it listed, or readings, in the last tick.
    pub items: usize,
    /// Failed readings, or problems, in the last tick.
    pub errors: usize,
    /// Errors that only mean that something is missing.
    pub absent: usize,
    /// Whether its programs and counters stay after the daemon's exit; null for readers without them.
    pub pinned: Option<bool>,
}

/// Every source of VMs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sources<'s> {
    pub sources: Vec<Source<'s>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Source<'s> {
    pub name: &'s str,
    /// Its input, in a few words.
    pub help: &'s str,
    pub state: Health,
    /// As in `/health`.
    pub reason: Option<Cow<'s, str>>,
    /// VMs that it listed in the last tick.
    pub instances: usize,
}

impl<'s> Vms<'s> {
    pub fn of(snapshot: &'s Snapshot) -> Self {
        Self {
            tick: snapshot.tick,
            taken_at: humantime::format_rfc3339_millis(snapshot.taken_at).to_string(),
            vms: snapshot.vms.iter().map(Vm::of).collect(),
        }
    }
}

impl<'s> Vm<'s> {
    pub fn of(stats: &'s VmStats) -> Self {
        Self {
            stats,
            cpu_seconds: stats.cpu_seconds(),
            memory_utilization_ratio: stats.memory_utilization_ratio(),
        }
    }
}

impl<'s> DaemonHealth<'s> {
    pub fn of(snapshot: &'s Snapshot, healthy: bool, detail: Detail) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            healthy,
            tick: snapshot.tick,
            snapshot_age_seconds: snapshot.taken.elapsed().as_secs_f64(),
            ticks_late: snapshot.missed.ticks,
            tick_duration_seconds: snapshot.tick_duration.as_secs_f64(),
            parts: snapshot.components.iter().map(|run| Component::of(run, detail)).collect(),
        }
    }
}

impl<'s> Component<'s> {
    fn of(run: &'s ComponentRun, detail: Detail) -> Self {
        Self {
            kind: run.kind,
            name: run.name,
            state: run.health.state,
            reason: reason(run, detail),
            errno: run.health.errno.filter(|_| detail == Detail::Full),
            duration_seconds: run.duration.map(|duration| duration.as_secs_f64()),
            items: run.items,
            errors: run.errors,
            absent: run.absent,
            pinned: run.pinned,
        }
    }
}

impl<'s> Sources<'s> {
    /// `help` describes a source by its name, where it knows it.
    pub fn of(snapshot: &'s Snapshot, detail: Detail, help: fn(&str) -> Option<&'static str>) -> Self {
        let source = |run: &'s ComponentRun| Source {
            name: run.name,
            help: help(run.name).unwrap_or_default(),
            state: run.health.state,
            reason: reason(run, detail),
            instances: run.items,
        };
        let is_source = |run: &&ComponentRun| run.kind == ComponentKind::Source;
        Self { sources: snapshot.components.iter().filter(is_source).map(source).collect() }
    }
}

fn reason(run: &ComponentRun, detail: Detail) -> Option<Cow<'_, str>> {
    let reason = Some(run.health.reason.as_str()).filter(|reason| !reason.is_empty())?;
    Some(match (detail, run.errors) {
        (Detail::Full, _) => reason.into(),
        (Detail::Counts, 0) => "`vm-metrics doctor` or the API on the Unix socket has the reason".into(),
        (Detail::Counts, 1) => "1 problem: `vm-metrics doctor` or the API on the Unix socket lists it".into(),
        (Detail::Counts, errors) => {
            format!("{errors} problems: `vm-metrics doctor` or the API on the Unix socket lists them").into()
        }
    })
}
