//! `vm-metrics doctor`: one tick, exactly as the daemon would do it, and what came of each part.

use std::fmt::Write as _;

use rustix::process::{Resource, getrlimit};

use crate::app::App;
use crate::cli::print;
use crate::config::Config;
use crate::model::{PartRun, Printable, Snapshot};
use crate::readers::Purpose;

pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let app = App::new(config)?;
    let btf = app.settings().host.btf().exists();
    let snapshot = app.into_manager(Purpose::Look)?.collect();
    print(&report(&snapshot, btf))
}

fn report(snapshot: &Snapshot, btf: bool) -> String {
    let kernel = rustix::system::uname();
    let files =
        getrlimit(Resource::Nofile).maximum.map_or_else(|| "no limit".to_owned(), |max| max.to_string());
    let mut report = String::new();
    let mut line = |what: &str, is: &str| {
        let _ = writeln!(report, "{what:<22} {}", Printable(is));
    };
    line("vm-metrics", env!("CARGO_PKG_VERSION"));
    line("kernel", &kernel.release().to_string_lossy());
    line("kernel BTF", if btf { "yes" } else { "no" });
    line("open files allowed", &files);
    for part in &snapshot.parts {
        line(&format!("{} {}", part.kind.as_str(), part.name), &describe(part));
    }
    line("VMs", &snapshot.vms.len().to_string());
    for vm in &snapshot.vms {
        for nic in &vm.uncounted {
            let (kind, name) = (nic.kind.as_str(), &nic.name);
            line("network not counted", &format!("{}: {kind} {name}: {}", vm.instance_id, nic.kind.reason()));
        }
    }
    report
}

fn describe(part: &PartRun) -> String {
    let health = &part.health;
    let mut text = format!("{} ({} read)", health.state.as_str(), part.items);
    if !health.reason.is_empty() {
        let _ = write!(text, ": {}", health.reason);
    }
    if let Some(errno) = health.errno {
        let _ = write!(text, " (errno {errno})");
    }
    text
}
