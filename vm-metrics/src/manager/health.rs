//! Decides on the health of each component, from its reports.

use std::time::Duration;

use crate::model::{ComponentHealth, ComponentKind, ComponentRun, ComponentTotals, Health};
use crate::readers::{ReadReport, ReaderError};
use crate::sources::{SourceError, SourceReport};

/// The health of a reader after one tick.
pub(super) fn reader_run(name: &'static str, report: &ReadReport, duration: Duration) -> ComponentRun {
    let first = report.first_error.as_ref();
    let health = match first {
        None if report.waiting > 0 => ComponentHealth::new(Health::Starting, waiting(report.waiting)),
        None => ComponentHealth::healthy(),
        Some(error) => {
            let is_complete = report.errors == report.absent;
            // Files that another reader makes needless are no loss.
            let state = match (report.items + report.read_before, report.waiting) {
                (0, _) if !is_complete => Health::Failed,
                (_, 1..) if is_complete => Health::Starting,
                _ => Health::Degraded,
            };
            ComponentHealth::new(state, with_count(&error.to_string(), report.errors))
                .with_errno(error.errno())
                .with_warning(error.is_loss())
        }
    };
    ComponentRun {
        kind: ComponentKind::Reader,
        name,
        health,
        duration: Some(duration),
        items: report.items,
        errors: report.errors,
        absent: report.absent,
        lost: report.lost,
        pinned: report.pinned,
        overuse: report.overuse.clone().into_list(),
        totals: ComponentTotals::default(),
    }
}

fn waiting(taps: usize) -> String {
    ReaderError::Waiting { taps }.to_string()
}

/// The health of a source after one tick.
pub(super) fn source_run(report: &SourceReport) -> ComponentRun {
    if let (Err(absent @ SourceError::Absent { .. }), true) = (&report.result, report.auto) {
        let health = ComponentHealth::new(Health::Disabled, absent.to_string());
        return ComponentRun {
            duration: Some(report.duration),
            ..not_run(ComponentKind::Source, report.name, health)
        };
    }
    let problems = report.problems.len();
    let (health, items) = match (&report.result, report.problems.first()) {
        (Err(error), _) => {
            (ComponentHealth::new(Health::Failed, error.to_string()).with_errno(error.errno()), 0)
        }
        (Ok(items), None) => (ComponentHealth::healthy(), *items),
        (Ok(items), Some(first)) => {
            (ComponentHealth::new(Health::Degraded, with_count(first, problems)), *items)
        }
    };
    ComponentRun {
        kind: ComponentKind::Source,
        name: report.name,
        health,
        duration: Some(report.duration),
        items,
        errors: problems + usize::from(report.result.is_err()),
        absent: report.absent,
        lost: None,
        pinned: None,
        overuse: report.overuse.clone().into_list(),
        totals: ComponentTotals::default(),
    }
}

/// A source that is switched off.
pub(super) fn source_off(name: &'static str) -> ComponentRun {
    let health = ComponentHealth::new(Health::Disabled, "switched off, or nothing in its section");
    not_run(ComponentKind::Source, name, health)
}

/// The state file that the manager keeps for its next start.
pub(super) fn state_run(health: &ComponentHealth) -> ComponentRun {
    let is_fault = matches!(health.state, Health::Degraded | Health::Failed);
    let not_run = not_run(ComponentKind::Manager, "state", health.clone());
    ComponentRun { errors: usize::from(is_fault), ..not_run }
}

/// A component that has not run in this tick.
pub(super) fn not_run(kind: ComponentKind, name: &'static str, health: ComponentHealth) -> ComponentRun {
    ComponentRun {
        kind,
        name,
        health,
        duration: None,
        items: 0,
        errors: 0,
        absent: 0,
        lost: None,
        pinned: None,
        overuse: Vec::new(),
        totals: ComponentTotals::default(),
    }
}

/// The first of several errors, and how many more there were.
pub(super) fn with_count(first: &str, errors: usize) -> String {
    match errors {
        0 | 1 => first.to_owned(),
        more => format!("{first} (and {} more)", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Excess;

    fn run_of(items: usize, errors: Vec<ReaderError>) -> ComponentRun {
        let mut report = ReadReport { items, ..ReadReport::default() };
        errors.into_iter().for_each(|error| report.error(error));
        reader_run("a", &report, Duration::ZERO)
    }

    fn absent() -> ReaderError {
        ReaderError::NoDevice { device: "t".into() }
    }

    fn fault() -> ReaderError {
        ReaderError::Device { device: "t".into(), problem: "broken".into(), errno: None }
    }

    #[test]
    fn a_reader_fails_if_faults_leave_no_reading() {
        let state = |items, errors| run_of(items, errors).health.state;
        assert_eq!([state(0, vec![]), state(1, vec![])], [Health::Healthy; 2]);
        let degraded = [state(0, vec![absent()]), state(1, vec![absent()]), state(1, vec![fault()])];
        assert_eq!(degraded, [Health::Degraded; 3]);
        assert_eq!([state(0, vec![fault()]), state(0, vec![absent(), fault()])], [Health::Failed; 2]);
        let mut report = ReadReport { read_before: 1, ..ReadReport::default() };
        report.error(fault());
        assert_eq!(reader_run("a", &report, Duration::ZERO).health.state, Health::Degraded);
    }

    #[test]
    fn a_reader_with_waiting_taps_is_starting() {
        let run = |errors: Vec<ReaderError>| {
            let mut report = ReadReport { waiting: 90, ..ReadReport::default() };
            errors.into_iter().for_each(|error| report.error(error));
            let run = reader_run("a", &report, Duration::ZERO);
            (run.health.state, run.is_complete())
        };
        assert_eq!(run(vec![]), (Health::Starting, true));
        assert_eq!(run(vec![absent()]), (Health::Starting, true));
        assert_eq!(run(vec![fault()]), (Health::Failed, false), "a fault is not hidden");
    }

    #[test]
    fn a_missing_source_fails_only_if_configured() {
        let run = |auto| {
            let result = Err(SourceError::Absent { path: "/run/x".into() });
            let report = SourceReport {
                name: "a",
                result,
                problems: Vec::new(),
                absent: 0,
                duration: Duration::ZERO,
                auto,
                overuse: Excess::default(),
            };
            let run = source_run(&report);
            (run.health.state, run.health.reason, run.errors)
        };
        let reason = || "/run/x is not there".to_owned();
        assert_eq!(run(true), (Health::Disabled, reason(), 0));
        assert_eq!(run(false), (Health::Failed, reason(), 1));
    }

    #[test]
    fn absent_devices_hide_no_fault() {
        assert!(run_of(0, vec![absent()]).is_complete());
        let run = run_of(1, vec![absent(), fault(), absent()]);
        assert!(!run.is_complete());
        assert_eq!(run.health.reason, "t: broken (and 2 more)");
    }
}
