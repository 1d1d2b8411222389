//! Logs the health of components when it changes, not at every tick.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::model::{ComponentHealth, ComponentKind, ComponentRun, Health};

/// A reason may name another process at each tick. So new reasons of one component wait this long for each other.
const PAUSE: Duration = Duration::from_secs(60);

/// Logs a component in one line when its health changes, or the reason does.
#[derive(Debug, Default)]
pub(super) struct HealthLog {
    components: HashMap<(ComponentKind, &'static str), LoggedHealth>,
}

/// The last logged line of one component, and the changes since.
#[derive(Debug)]
struct LoggedHealth {
    at: Instant,
    state: Health,
    reason: String,
    /// The reason at the last tick, logged or not.
    latest: String,
    suppressed: u64,
}

impl HealthLog {
    /// Logs all components of one tick. The absent ones share a line at the start.
    pub(super) fn note(&mut self, runs: &[ComponentRun]) {
        for (level, text) in self.lines(runs, Instant::now()) {
            match level {
                Level::WARN => tracing::warn!("{text}"),
                Level::INFO => tracing::info!("{text}"),
                _ => tracing::debug!("{text}"),
            }
        }
    }

    fn lines(&mut self, runs: &[ComponentRun], now: Instant) -> Vec<(Level, String)> {
        let (mut lines, mut absent) = (Vec::new(), Vec::new());
        for run in runs {
            let is_first = !self.components.contains_key(&(run.kind, run.name));
            let Some((level, text)) = self.line(run, now) else { continue };
            if is_first && is_absent(&run.health) {
                absent.push(if run.kind == ComponentKind::Manager { "state_dir" } else { run.name });
                lines.push((Level::DEBUG, text));
            } else {
                lines.push((level, text));
            }
        }
        if !absent.is_empty() {
            let names = absent.join(", ");
            let text = format!("not here, or switched off: {names} (details: `vm-metrics doctor`)");
            lines.push((Level::INFO, text));
        }
        lines
    }

    fn line(&mut self, run: &ComponentRun, now: Instant) -> Option<(Level, String)> {
        let logged = self.components.get_mut(&(run.kind, run.name));
        let (state, reason) = (run.health.state, &run.health.reason);
        let (mut again, mut suppressed) = (false, 0);
        if let Some(logged) = logged {
            if logged.state == state {
                let new = *reason != logged.latest;
                if new {
                    logged.latest.clone_from(reason);
                }
                if *reason == logged.reason {
                    return None;
                }
                if now.duration_since(logged.at) < PAUSE {
                    logged.suppressed += u64::from(new);
                    return None;
                }
                // The reason that is logged now may be a suppressed one.
                logged.suppressed = logged.suppressed.saturating_sub(u64::from(!new));
            }
            // Suppressed reasons do not matter any more once the component works.
            (again, suppressed) = (true, if state == Health::Healthy { 0 } else { logged.suppressed });
        }
        let logged =
            LoggedHealth { at: now, state, reason: reason.clone(), latest: reason.clone(), suppressed: 0 };
        self.components.insert((run.kind, run.name), logged);
        let (level, mut text) = describe(run, again);
        if suppressed > 0 {
            text += &format!(" (other reasons since the last line: {suppressed})");
        }
        Some((level, text))
    }
}

/// Whether the component is switched off, or not supported by this host. A kernel error, such as a missing right, is
/// more.
fn is_absent(health: &ComponentHealth) -> bool {
    match health.state {
        Health::Disabled => true,
        Health::Unsupported => health.errno.is_none(),
        _ => false,
    }
}

fn describe(run: &ComponentRun, again: bool) -> (Level, String) {
    let component = format!("{} {}", run.kind.as_str(), run.name);
    let errno = run.health.errno.map(|errno| format!(" (errno {errno})")).unwrap_or_default();
    let reason = format!("{}{errno}", run.health.reason);
    let runs = run.duration.is_some();
    match run.health.state {
        Health::Healthy if again => (Level::INFO, format!("{component} works again")),
        Health::Healthy => (Level::DEBUG, format!("{component} works")),
        Health::Disabled => (Level::INFO, format!("{component} is off: {reason}")),
        Health::Starting | Health::Degraded if run.is_complete() && !run.health.warns => {
            (Level::INFO, format!("{component}: {reason}"))
        }
        Health::Starting | Health::Degraded | Health::Failed if runs => {
            (Level::WARN, format!("{component}: {reason}"))
        }
        Health::Starting | Health::Degraded | Health::Failed | Health::Unsupported => {
            (Level::WARN, format!("{component} is off: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ComponentTotals;

    fn run(state: Health, reason: &str) -> ComponentRun {
        ComponentRun {
            kind: ComponentKind::Reader,
            name: "a",
            health: ComponentHealth::new(state, reason),
            duration: Some(Duration::ZERO),
            items: 0,
            errors: 1,
            absent: 0,
            lost: None,
            pinned: None,
            overuse: Vec::new(),
            totals: ComponentTotals::default(),
        }
    }

    #[test]
    fn reasons_are_logged_once_a_minute() {
        let (mut log, start) = (HealthLog::default(), Instant::now());
        let mut at = |seconds, state, reason| {
            log.line(&run(state, reason), start + Duration::from_secs(seconds)).map(|(_, text)| text)
        };
        let line = |text: &str| Some(text.to_owned());
        assert_eq!(at(0, Health::Degraded, "x"), line("reader a: x"));
        assert_eq!(at(1, Health::Degraded, "x"), None);
        assert_eq!(at(2, Health::Degraded, "y"), None);
        assert_eq!(at(3, Health::Degraded, "z"), None);
        assert_eq!(at(61, Health::Degraded, "z"), line("reader a: z (other reasons since the last line: 1)"));
        assert_eq!(at(62, Health::Degraded, "z"), None);
        assert_eq!(at(122, Health::Degraded, "x"), line("reader a: x"));
        assert_eq!(at(123, Health::Failed, "x"), line("reader a: x"), "another state does not wait");
        assert_eq!(at(124, Health::Healthy, ""), line("reader a works again"));
        assert_eq!(at(125, Health::Degraded, "x"), line("reader a: x"));
    }

    #[test]
    fn absent_components_share_one_line() {
        let mut log = HealthLog::default();
        let named = |name, state| ComponentRun { name, ..run(state, "not there") };
        let runs =
            [named("a", Health::Disabled), named("b", Health::Degraded), named("c", Health::Unsupported)];
        let shown = |log: &mut HealthLog, runs: &[ComponentRun]| {
            let lines = log.lines(runs, Instant::now());
            lines
                .into_iter()
                .filter(|(level, _)| *level <= Level::INFO)
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
        };
        let here = "reader b: not there";
        let absent = "not here, or switched off: a, c (details: `vm-metrics doctor`)";
        assert_eq!(shown(&mut log, &runs), [here, absent]);
        assert_eq!(shown(&mut log, &runs), [""; 0]);
        assert_eq!(shown(&mut log, &[named("b", Health::Disabled)]), ["reader b is off: not there"]);
    }

    #[test]
    fn a_loss_warns_and_a_start_does_not() {
        let mut run = ComponentRun { errors: 0, ..run(Health::Starting, "90 TAPs wait") };
        assert_eq!(describe(&run, false), (Level::INFO, "reader a: 90 TAPs wait".to_owned()));
        run.health = ComponentHealth::new(Health::Degraded, "no pins").with_warning(true);
        assert_eq!(describe(&run, false), (Level::WARN, "reader a: no pins".to_owned()));
    }

    #[test]
    fn only_a_stopped_component_is_off() {
        let mut run = run(Health::Failed, "x");
        assert_eq!(describe(&run, false), (Level::WARN, "reader a: x".to_owned()));
        run.duration = None;
        assert_eq!(describe(&run, false), (Level::WARN, "reader a is off: x".to_owned()));
        run.duration = Some(Duration::ZERO);
        run.health.state = Health::Degraded;
        run.absent = run.errors;
        assert_eq!(describe(&run, false), (Level::INFO, "reader a: x".to_owned()));
    }
}
