//! A source, a reader or the saved state as a line of the check list.

use serde::Deserialize;

use super::check::{Check, Sign};
use crate::model::{ComponentKind, ComponentRun, Health};
use crate::readers::TAP_EBPF;

/// How a part did in the last tick, of this process or of the daemon.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Part {
    kind: ComponentKind,
    name: String,
    state: Health,
    reason: Option<String>,
    errno: Option<i32>,
    items: usize,
    #[serde(default)]
    pinned: Option<bool>,
}

impl From<&ComponentRun> for Part {
    fn from(run: &ComponentRun) -> Self {
        Self {
            kind: run.kind,
            name: run.name.to_owned(),
            state: run.health.state,
            reason: Some(run.health.reason.clone()).filter(|reason| !reason.is_empty()),
            errno: run.health.errno,
            items: run.items,
            pinned: run.pinned,
        }
    }
}

impl Part {
    pub(super) fn check(&self) -> Check {
        let sign = match self.state {
            Health::Healthy | Health::Starting => Sign::Good,
            Health::Degraded => Sign::Partly,
            Health::Disabled => Sign::Absent,
            // Without a word of the kernel nothing on this host would mend it.
            Health::Unsupported if self.errno.is_none() => Sign::Absent,
            Health::Unsupported | Health::Failed => Sign::Bad,
        };
        let remedy = if matches!(sign, Sign::Bad | Sign::Partly) { self.remedy() } else { None };
        Check::new(sign, format!("{} {}", self.kind.as_str(), self.name), self.describe()).with_remedy(remedy)
    }

    fn kind_of_items(&self) -> &'static str {
        match (self.kind, self.items) {
            (ComponentKind::Source, 1) => "VM",
            (ComponentKind::Source, _) => "VMs",
            _ => "read",
        }
    }

    fn describe(&self) -> String {
        let mut text = if self.state == Health::Disabled { "off" } else { self.state.as_str() }.to_owned();
        let runs = matches!(self.state, Health::Healthy | Health::Starting | Health::Degraded);
        if runs && self.kind != ComponentKind::Manager {
            text += &format!(", {} {}", self.items, self.kind_of_items());
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
            (ComponentKind::Manager, _) => Some(
                "name a directory that only the daemon's user may write: state_dir = \"/run/vm-metrics\""
                    .to_owned(),
            ),
            (ComponentKind::Reader, Health::Unsupported) if !is_denied => {
                Some(format!("another kernel; [readers.{}] enabled = false, if it is not wanted", self.name))
            }
            _ if is_denied => {
                Some("see the rights above: the unit in deploy/systemd has them all".to_owned())
            }
            (ComponentKind::Source, Health::Failed) => Some(format!(
                "mend what this line names; [sources.{}] enabled = false does without it",
                self.name
            )),
            (ComponentKind::Source | ComponentKind::Reader, Health::Degraded) => {
                Some("mend what this line names; the rest of it works".to_owned())
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
            Some(false) => Check::new(Sign::Bad, "pins", "none: counters of eBPF begin at 0 with each start")
                .with_remedy(self.reason.clone()),
            None => Check::new(Sign::Absent, "pins", "not asked for, or eBPF does not run"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(kind: &str, name: &str, state: &str) -> Part {
        let part = json!({"kind": kind, "name": name, "state": state, "reason": "why: advice", "errno": null,
                          "items": 0, "errors": 1, "absent": 1, "pinned": false});
        serde_json::from_value(part).unwrap()
    }

    #[test]
    fn a_degraded_part_has_a_sign_of_its_own() {
        for (kind, name) in [("source", "static_list"), ("source", "proc_scan"), ("reader", "tap_ebpf")] {
            let part = part(kind, name, "degraded");
            assert_eq!(part.check().result, Sign::Partly, "{name}");
            assert!(part.remedy().is_some(), "{name}");
        }
    }

    #[test]
    fn remedies_fit_what_is_wrong() {
        let failed = part("source", "vm_dir", "failed").remedy().unwrap();
        assert!(!failed.contains("auto") && failed.contains("[sources.vm_dir] enabled = false"), "{failed}");
        let pins = render(&[part("reader", "tap_ebpf", "degraded").pins().unwrap()]);
        assert!(pins.contains("why: advice"), "{pins}");
    }

    fn render(checks: &[Check]) -> String {
        super::super::check::render(checks, super::super::check::Style::of_output())
    }
}
