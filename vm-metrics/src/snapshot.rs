//! `vm-metrics snapshot`: prints all VMs, once or repeatedly.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::app::App;
use crate::config::Document;
use crate::documents::Vms;
use crate::exporters::{json, table};
use crate::local_daemon::{LocalDaemon, Stranger};
use crate::manager::Manager;
use crate::model::{ComponentKind, ComponentRun, Health, Printable, Snapshot};
use crate::readers::{self, Purpose};
use crate::terminal::{printable_json, try_print};

/// Time limit of one look. Processes of users with little time may need several readings.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two readings of one look.
const PAUSE: Duration = Duration::from_millis(50);

/// Moves the cursor to the corner of the terminal and clears it.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    /// Interval of the tables with rates.
    pub(crate) watch: Option<Duration>,
    /// Whether the running daemon is left alone.
    pub(crate) no_daemon: bool,
}

/// The origin of the list of VMs.
enum Witness {
    Daemon(LocalDaemon),
    /// A manager of this process. Programs attached for one reading would count nothing, so it reads the devices' counters.
    Own(Manager),
}

pub(crate) fn run(document: Document, options: Options) -> anyhow::Result<()> {
    let app = App::load(document, |config| config.readers.switch_off(readers::BY_EBPF))?;
    let daemon = if options.no_daemon { None } else { LocalDaemon::find(app.settings(), warn_of) };
    let witness = match daemon {
        Some(daemon) => {
            eprintln!("{}", Printable(format!("these numbers are of {daemon} ({})", daemon.who())));
            Witness::Daemon(daemon)
        }
        None => Witness::Own(app.into_manager(Purpose::Look)?),
    };
    match options.watch {
        None => once(&witness, options.json),
        Some(interval) => watch(&witness, options.json, interval),
    }
}

fn warn_of(stranger: &Stranger) {
    eprintln!("{}", Printable(stranger.to_string()));
}

fn once(witness: &Witness, json: bool) -> anyhow::Result<()> {
    let (document, failure) = witness.look(true)?;
    let vms: Vms = serde_json::from_slice(&document)?;
    // Without a VM only the failure is shown: "none" would be a guess.
    if failure.is_none() || !vms.vms.is_empty() {
        let text = if json { line(&document)? } else { tabled(&vms, None) };
        try_print(&text)?;
    }
    failure.map_or(Ok(()), |failure| bail!("VMs may be missing: {failure}"))
}

/// Ends when the output has no reader any more.
fn watch(witness: &Witness, json: bool, interval: Duration) -> anyhow::Result<()> {
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before: Option<Vms> = None;
    loop {
        let (document, failure) = witness.look(before.is_none())?;
        if let Some(failure) = failure {
            eprintln!("{}", Printable(format!("VMs may be missing: {failure}")));
        }
        let vms: Vms = serde_json::from_slice(&document)?;
        // The daemon may not have made a tick since.
        if before.as_ref().is_some_and(|before| before.taken_at == vms.taken_at) {
            sleep(interval);
            continue;
        }
        let text = match &before {
            _ if json => line(&document)?,
            None => String::new(),
            Some(before) => format!("{clear}{}\n", tabled(&vms, Some(before))),
        };
        if !try_print(&text)? {
            return Ok(());
        }
        before = Some(vms);
        sleep(interval);
    }
}

impl Witness {
    /// The document of the API, and the failure of a source that may hide VMs.
    fn look(&self, is_first: bool) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        match self {
            Self::Daemon(daemon) => Ok((daemon.get("/api/v1/vms")?.into(), None)),
            Self::Own(manager) => {
                let mut snapshot = look(manager);
                if is_first {
                    forget_sums(Arc::make_mut(&mut snapshot));
                }
                Ok((document(&snapshot)?, source_failure(&snapshot)))
            }
        }
    }
}

/// One complete look, which repeats the tick for users whose time is shared. The daemon spreads that over its ticks.
pub(crate) fn look(manager: &Manager) -> Arc<Snapshot> {
    look_until(Instant::now() + PATIENCE, || manager.collect())
}

/// The document `/api/v1/vms` of a snapshot.
pub(crate) fn document(snapshot: &Snapshot) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&json::Vms::of(snapshot))
}

/// Removes sums since an earlier tick: one look has no earlier tick, also if it needed several readings.
fn forget_sums(snapshot: &mut Snapshot) {
    for vm in &mut snapshot.vms {
        (vm.process.cpu_wait_usec, vm.process.context_switches) = (None, None);
    }
}

fn look_until(until: Instant, collect: impl Fn() -> Arc<Snapshot>) -> Arc<Snapshot> {
    loop {
        let snapshot = collect();
        let is_cut = snapshot.components.iter().any(|part| !part.overuse.is_empty());
        if !is_cut || Instant::now() > until {
            return snapshot;
        }
        sleep(PAUSE);
    }
}

/// The first source that could not list its VMs.
fn source_failure(snapshot: &Snapshot) -> Option<String> {
    let failed =
        |part: &&ComponentRun| part.kind == ComponentKind::Source && part.health.state == Health::Failed;
    let part = snapshot.components.iter().find(failed)?;
    Some(format!("source {}: {}", part.name, part.health.reason))
}

fn tabled(vms: &Vms, before: Option<&Vms>) -> String {
    if vms.vms.is_empty() {
        return "no VMs found on this host (`vm-metrics doctor` lists the sources)\n".to_owned();
    }
    match before {
        None => table::render(&vms.vms),
        Some(before) => table::render_rates(before, vms),
    }
}

/// As the API gives it, on one line.
fn line(document: &[u8]) -> anyhow::Result<String> {
    Ok(printable_json(str::from_utf8(document)?) + "\n")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::exporters::metrics::tests::full;
    use crate::model::Overuse;

    /// As on a busy host, where the time of users who are not trusted ends before their processes do.
    fn looks_until_complete(complete: usize, until: Instant) -> usize {
        let looks = Cell::new(0);
        look_until(until, || {
            looks.set(looks.get() + 1);
            let mut snapshot = full();
            snapshot.components.iter_mut().for_each(|part| part.overuse.clear());
            if looks.get() < complete {
                snapshot.components[0].overuse.push(Overuse { uid: Some(1000), resource: "looks", count: 1 });
            }
            Arc::new(snapshot)
        });
        looks.get()
    }

    #[test]
    fn a_look_waits_for_those_left_out() {
        assert_eq!(looks_until_complete(3, Instant::now() + Duration::from_secs(600)), 3);
        assert_eq!(looks_until_complete(3, Instant::now()), 1, "not for ever");
    }
}
