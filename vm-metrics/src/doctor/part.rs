//! A source, a reader or the saved state as a line of the check list.

use serde::Deserialize;

use super::check::{Check, Sign};
use crate::model::{Health, PartKind, PartRun};
use crate::readers::TAP_EBPF;

/// How a part did in the last tick, of this process or of the daemon.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Part {
    kind: PartKind,
    name: String,
    state: Health,
    reason: Option<String>,
    errno: Option<i32>,
    items: usize,
    errors: usize,
    #[serde(default)]
    absent: usize,
    #[serde(default)]
    pinned: Option<bool>,
}

impl From<&PartRun> for Part {
    fn from(run: &PartRun) -> Self {
        Self {
            kind: run.kind,
            name: run.name.to_owned(),
            state: run.health.state,
            reason: Some(run.health.reason.clone()).filter(|reason| !reason.is_empty()),
            errno: run.health.errno,
            items: run.items,
            errors: run.errors,
            absent: run.absent,
            pinned: run.pinned,
        }
    }
}

impl Part {
    pub(super) fn check(&self) -> Check {
        let sign = match self.state {
            Health::Healthy | Health::Starting => Sign::Good,
            // What is not there is no fault of the part.
            Health::Degraded if self.errors == self.absent => Sign::Good,
            Health::Disabled => Sign::Absent,
            // Without a word of the kernel nothing on this host would mend it.
            Health::Unsupported if self.errno.is_none() => Sign::Absent,
            Health::Degraded | Health::Unsupported | Health::Failed => Sign::Bad,
        };
        let remedy = if sign == Sign::Bad { self.remedy() } else { None };
        Check::new(sign, format!("{} {}", self.kind.as_str(), self.name), self.describe()).with_remedy(remedy)
    }

    fn describe(&self) -> String {
        let mut text = if self.state == Health::Disabled { "off" } else { self.state.as_str() }.to_owned();
        let runs = matches!(self.state, Health::Healthy | Health::Starting | Health::Degraded);
        if runs && self.kind != PartKind::Manager {
            text +=
                &format!(", {} {}", self.items, if self.kind == PartKind::Source { "VMs" } else { "read" });
        }
        if let Some(reason) = &self.reason {
            text += &format!(": {reason}");
        }
        if let Some(errno) = self.errno {
            text += &format!(" (errno {errno})");
        }
        text
    }

    /// What the reason does not say already.
    fn remedy(&self) -> Option<String> {
        const EPERM: i32 = 1;
        const EACCES: i32 = 13;
        let is_denied = matches!(self.errno, Some(EPERM | EACCES));
        match (self.kind, self.state) {
            (PartKind::Manager, _) => {
                Some("make it a directory of the daemon's user alone (chmod 0700)".to_owned())
            }
            (PartKind::Reader, Health::Unsupported) if !is_denied => {
                Some(format!("another kernel; [readers.{}] enabled = false, if it is not wanted", self.name))
            }
            _ if is_denied => {
                Some("see the rights above: the unit in deploy/systemd has them all".to_owned())
            }
            (PartKind::Source, Health::Failed) => {
                Some(format!("[sources.{}] enabled = \"auto\" uses it only where it is there", self.name))
            }
            _ => None,
        }
    }

    /// Whether counting goes on while the daemon is away; `None` where this is not the part that counts.
    pub(super) fn pins(&self) -> Option<Check> {
        if self.name != TAP_EBPF {
            return None;
        }
        const GOES_ON: &str = "counting goes on while the daemon is away";
        let runs = matches!(self.state, Health::Healthy | Health::Starting | Health::Degraded);
        Some(match self.pinned.filter(|_| runs) {
            Some(true) => Check::new(Sign::Good, "pins", GOES_ON),
            Some(false) => {
                let remedy =
                    "the line of tap_ebpf says why and what helps; pin = false does without".to_owned();
                Check::new(Sign::Bad, "pins", "none: counters of eBPF begin at 0 with each start")
                    .with_remedy(Some(remedy))
            }
            None => Check::new(Sign::Absent, "pins", "not asked for, or eBPF does not run"),
        })
    }
}
