//! From what a part reports to its health. Changes are logged once, not at every tick.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{Health, PartHealth, PartKind, PartRun};
use crate::readers::ReadReport;
use crate::sources::SourceReport;

/// The health of a reader after one round.
pub(super) fn reader_run(name: &'static str, report: &ReadReport, duration: Duration) -> PartRun {
    let first = report.first_error.as_ref();
    let health = match first {
        None => PartHealth::healthy(),
        Some(error) => {
            let nothing_works = report.items == 0 && !error.is_absence();
            let state = if nothing_works { Health::Failed } else { Health::Degraded };
            PartHealth::new(state, with_count(&error.to_string(), report.errors)).with_errno(error.errno())
        }
    };
    PartRun {
        kind: PartKind::Reader,
        name,
        health,
        duration: Some(duration),
        items: report.items,
        errors: report.errors,
    }
}

/// The health of a source after one round.
pub(super) fn source_run(report: &SourceReport) -> PartRun {
    let problems = report.problems.len();
    let (health, items) = match (&report.result, report.problems.first()) {
        (Err(error), _) => (PartHealth::new(Health::Failed, error.to_string()).with_errno(error.errno()), 0),
        (Ok(items), None) => (PartHealth::healthy(), *items),
        (Ok(items), Some(first)) => (PartHealth::new(Health::Degraded, with_count(first, problems)), *items),
    };
    PartRun {
        kind: PartKind::Source,
        name: report.name,
        health,
        duration: Some(report.duration),
        items,
        errors: problems + usize::from(report.result.is_err()),
    }
}

/// A source that is not asked.
pub(super) fn source_off(name: &'static str) -> PartRun {
    let health = PartHealth::new(Health::Disabled, "switched off, or no VMs in its section");
    PartRun { kind: PartKind::Source, name, health, duration: None, items: 0, errors: 0 }
}

/// The first of several errors, and how many more there were.
pub(super) fn with_count(first: &str, errors: usize) -> String {
    match errors {
        0 | 1 => first.to_owned(),
        more => format!("{first} (and {} more)", more - 1),
    }
}

/// Logs a part when its health changes, in one line.
#[derive(Debug, Default)]
pub(super) struct HealthLog {
    last: HashMap<(PartKind, &'static str), Health>,
}

impl HealthLog {
    pub(super) fn note(&mut self, run: &PartRun) {
        let (kind, name, state) = (run.kind.as_str(), run.name, run.health.state);
        let before = self.last.insert((run.kind, run.name), state);
        if before == Some(state) {
            return;
        }
        let errno = run.health.errno.map(|errno| format!(" (errno {errno})")).unwrap_or_default();
        let reason = &run.health.reason;
        match state {
            Health::Healthy if before.is_none() => tracing::debug!("{kind} {name} works"),
            Health::Healthy => tracing::info!("{kind} {name} works again"),
            Health::Disabled => tracing::info!("{kind} {name} is off: {reason}"),
            Health::Degraded => tracing::warn!("{kind} {name} works in part: {reason}{errno}"),
            Health::Unsupported | Health::Failed => tracing::warn!("{kind} {name} is off: {reason}{errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::ReaderError;

    #[test]
    fn a_reader_fails_when_it_reads_nothing_but_not_when_there_is_nothing() {
        let state = |items, error: Option<ReaderError>| {
            let report = ReadReport { items, errors: error.iter().count(), first_error: error };
            reader_run("a", &report, Duration::ZERO).health.state
        };
        let absent = || Some(ReaderError::NoDevice { device: "t".into() });
        let fault =
            || Some(ReaderError::Device { device: "t".into(), problem: "broken".into(), errno: None });
        assert_eq!([state(0, None), state(1, None)], [Health::Healthy; 2]);
        assert_eq!([state(0, absent()), state(1, absent()), state(1, fault())], [Health::Degraded; 3]);
        assert_eq!(state(0, fault()), Health::Failed);
    }
}
