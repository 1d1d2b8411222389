//! The daemon of the schedule, and the processes that stand for VMs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::tap::Tap;

use super::oracle::Key;
use crate::user::User;
use crate::vmm::Shell;
use vm_metrics_testkit::random::Random;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) daemon: Option<Daemon>,
    /// VMs in the configuration, each with its device.
    listed: String,
    ways: Vec<&'static str>,
    /// The processes of all VMs so far.
    pub(crate) vmms: BTreeSet<u32>,
    shell: Shell,
    user: User,
    dir: TempDir,
}

impl Host {
    pub(crate) fn new<'a>(
        user: User,
        ways: Vec<&'static str>,
        listed: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let (dir, shell) = (tempfile::tempdir().unwrap(), Shell::new());
        let vm = |(id, tap)| format!("[[sources.static_list.vms]]\nid = \"{id}\"\ntaps = [\"{tap}\"]\n");
        Self { daemon: None, listed: listed.map(vm).collect(), ways, vmms: BTreeSet::new(), shell, user, dir }
    }

    /// Starts the next daemon, with other settings than the one before.
    pub(crate) fn start(&mut self, random: &mut Random) {
        let interval = random.one_of(&["50ms", "300ms", "1s"]);
        let way = random.one_of(&self.ways);
        let Self { listed, .. } = self;
        let config = self.dir.path().join("config.toml");
        let text = format!("interval = \"{interval}\"\n[readers.tap_ebpf]\nattach = \"{way}\"\n{listed}");
        fs::write(&config, text).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
        let daemon = self.user.start(binary, &config).unwrap();
        let pinned = daemon.metrics().unwrap().value("vm_exporter_reader_pinned", &[("reader", "tap_ebpf")]);
        assert_eq!(pinned, Some(1.0), "{}", daemon.log());
        self.daemon = Some(daemon);
    }

    /// Returns all metrics of a VM, for the message of a failure.
    pub(crate) fn all_of(&self, key: Option<&Key>) -> String {
        let output_text = self.daemon.as_ref().and_then(|daemon| daemon.scrape().ok()).unwrap_or_default();
        let about = |line: &&str| key.is_some_and(|key| line.contains(&key.vm));
        output_text.lines().filter(about).flat_map(|line| [line, "\n"]).collect()
    }

    /// Returns the published VMs and the sent bytes of each device.
    pub(crate) fn everything(&self) -> String {
        let output_text = self.daemon.as_ref().and_then(|daemon| daemon.scrape().ok()).unwrap_or_default();
        let wanted =
            |line: &&str| line.starts_with("vm_info{") || line.starts_with("vm_network_tx_bytes_total{");
        output_text.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect()
    }

    /// Starts a process that holds the TAP, like a VMM.
    pub(crate) fn start_vmm(&mut self, id: &str, tap: &Tap) -> ChildProcess {
        let process = self.shell.start(id, tap);
        self.vmms.insert(process.pid());
        process
    }
}
