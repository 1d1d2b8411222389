//! Readers measure the VMs: each reads one kind of file, map or socket.
//!
//! A reader does not time or judge itself. It does not merge, and keeps the host's directions. A new reader is a file in
//! `process/` or `tap/` with its `READER`, its `mod` line there and its line in [`READERS`]. Configuration, health and
//! timing follow.

mod cached_file;
mod cgroup;
mod error;
mod file_budget;
mod interval;
mod process;
mod tap;

use std::fmt;

pub use error::{ReadReport, ReaderError};
pub(crate) use file_budget::FileBudget;
pub use process::stat::read_proc_stat;
pub use process::statm::{ProcStatm, read_proc_statm};
#[cfg(feature = "daemon")]
pub(crate) use tap::ebpf::{detach, pins_version};
pub use tap::sysfs::read_tap_stats;

use crate::config::{ConfigError, Section, Sections};
use crate::host::Host;
use crate::model::{Batch, ComponentHealth, Health, Trust, VmSet};
use crate::net::events::EventPoller;
use crate::net::namespaces::Namespaces;

/// Reads one kind of number of all VMs.
pub trait Reader: Send {
    /// Whether it reads devices, so that they have to be found first.
    fn reads_devices(&self) -> bool {
        false
    }

    /// Adds its readings to the batch, and missing or unreadable ones to the report. Readers of devices share the open
    /// `namespaces`.
    fn read(&mut self, vms: &VmSet, namespaces: &mut Namespaces, batch: &mut Batch) -> ReadReport;

    /// Adds the final numbers of VMs and interfaces that were removed since the last tick. Most of their files are gone; a
    /// device may still exist, with another VM or without one. Readings in the batch are of this tick.
    fn read_final(&mut self, _: &VmSet, _: &mut Namespaces, _: &mut Batch) {}
}

/// A line of the table of readers.
#[derive(Debug)]
pub struct ReaderDef {
    pub name: &'static str,
    /// Checks the section and returns the start; touches nothing.
    configure: fn(&Section) -> Result<Start, ConfigError>,
}

/// All readers, in their order. Threads come before their process, so vCPUs are never ahead of the whole. The task iterator
/// comes before the files of processes, which read the rest. Devices come before eBPF, so the eBPF count is never older
/// than the device's; continuity relies on it. Each reader of devices reads those that the former ones could not.
pub const READERS: &[ReaderDef] = &[
    process::threads::READER,
    process::task_iter::READER,
    process::stat::READER,
    process::statm::READER,
    process::status::READER,
    process::io::READER,
    process::fd::READER,
    process::smaps::READER,
    cgroup::READER,
    tap::netlink::READER,
    tap::sysfs::READER,
    tap::procfs::READER,
    tap::ebpf::READER,
];

/// The reader whose maps count against the memory limit.
pub(crate) const TAP_EBPF: &str = tap::ebpf::READER.name;

/// The readers that need eBPF.
pub(crate) const BY_EBPF: [&str; 2] = [process::task_iter::READER.name, TAP_EBPF];

/// Readers that are off by default because of their cost. A read of the task iterator visits all threads of the host, and
/// nothing ends it early. It takes longer than the files where most threads are not of VMs.
pub const ON_REQUEST: &[&str] = &[process::task_iter::READER.name, process::smaps::READER.name];

/// Starts a reader that is configured.
type Start = Box<dyn FnOnce(&mut ReaderContext) -> StartOutcome + Send>;

/// The input of a reader's start.
#[derive(Debug)]
pub struct ReaderContext {
    pub host: Host,
    pub purpose: Purpose,
    /// Users whose work has no limits.
    pub trust: Trust,
    /// The poller for its sockets and pidfds.
    pub watch: EventPoller,
    /// The namespaces that all readers share.
    pub namespaces: Namespaces,
}

#[cfg(test)]
impl ReaderContext {
    pub(crate) fn of_test(host: Host, purpose: Purpose) -> Self {
        let (trust, watch, namespaces) = Default::default();
        Self { host, purpose, trust, watch, namespaces }
    }
}

/// The purpose of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a daemon: attached programs may outlive the process.
    Serve,
    /// For one reading: nothing outlives it, and a running daemon is not disturbed.
    Look,
}

/// The outcome of a start. A reader that does not start is reported, and never ends the daemon.
pub enum StartOutcome {
    Running(Box<dyn Reader>),
    Not(ComponentHealth),
    /// Continuing would do harm: the daemon must exit.
    #[cfg_attr(not(feature = "ebpf"), expect(dead_code, reason = "only the eBPF reader refuses"))]
    Refused(String),
}

/// A reader that is checked but not started.
pub struct ReaderConfig {
    pub name: &'static str,
    /// `None` when switched off.
    start: Option<Start>,
    /// Kernel memory that its start allocates.
    map_bytes: u64,
}

impl fmt::Debug for ReaderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderConfig").field("name", &self.name).field("on", &self.start.is_some()).finish()
    }
}

impl ReaderConfig {
    /// A reader of a test.
    #[cfg(test)]
    pub(crate) fn running(name: &'static str, reader: impl Reader + 'static) -> Self {
        Self { name, start: Some(Box::new(|_| StartOutcome::Running(Box::new(reader)))), map_bytes: 0 }
    }

    /// Kernel memory that its start allocates.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.map_bytes
    }

    pub fn start(self, context: &mut ReaderContext) -> StartOutcome {
        match self.start {
            Some(start) => start(context),
            None => {
                let is_on_request = ON_REQUEST.contains(&self.name);
                let reason =
                    if is_on_request { "on request only" } else { "switched off in the configuration" };
                StartOutcome::Not(ComponentHealth::new(Health::Disabled, reason))
            }
        }
    }
}

/// The reason why a reader of devices by name does not suit this host; `None` if it does.
fn not_this_kernel(host: &Host) -> Option<ComponentHealth> {
    let reason = "[host] has the files of another kernel, whose devices this one may have namesakes of";
    (!host.is_this_kernel()).then(|| ComponentHealth::new(Health::Unsupported, reason))
}

/// Checks the sections `[readers.<name>]` against the table.
pub fn configure(mut sections: Sections) -> Result<Vec<ReaderConfig>, ConfigError> {
    let configs = READERS
        .iter()
        .map(|def| {
            let section = sections.take(def.name);
            // A section that is switched off is checked all the same: a mistake in it must not wait.
            let start = (def.configure)(&section)?;
            let enabled = section.enabled(!ON_REQUEST.contains(&def.name))?;
            let counts_in_maps = enabled && def.name == TAP_EBPF;
            let map_bytes = if counts_in_maps { tap::ebpf::map_bytes(&section)? } else { 0 };
            Ok(ReaderConfig { name: def.name, start: enabled.then_some(start), map_bytes })
        })
        .collect::<Result<_, ConfigError>>()?;
    sections.none_left()?;
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vm_metrics_testkit::wait::{Deadline, SOON};

    use super::*;
    use crate::config::Config;
    use crate::model::InstanceInfo;

    fn configs(text: &str) -> Result<Vec<ReaderConfig>, ConfigError> {
        configure(Config::parse(Path::new("test.toml"), text)?.readers)
    }

    #[test]
    fn every_reader_is_on_unless_switched_off() {
        let on =
            |text: &str| configs(text).expect("a good config").iter().filter(|r| r.start.is_some()).count();
        let unasked = READERS.len() - ON_REQUEST.len();
        assert_eq!(on(""), unasked);
        assert_eq!(on("[readers]\ntap_ebpf.enabled = false"), unasked - 1);
        assert_eq!(on("[readers]\nproc_smaps.enabled = true"), unasked + 1);
    }

    /// Read of this process, on a kernel that counts open files.
    #[test]
    fn each_number_of_a_process_has_a_reader() {
        let pid = std::process::id();
        let mut context = ReaderContext::of_test(Host::default(), Purpose::Serve);
        let mut may_lack = vec![];
        let mut readers = Vec::new();
        for reader in configs("[readers.proc_smaps]\nenabled = true").unwrap() {
            match reader.name.starts_with("proc_").then(|| (reader.name, reader.start(&mut context))) {
                Some((_, StartOutcome::Running(reader))) => readers.push(reader),
                Some(("proc_fd", _)) => may_lack.push("open_files".to_owned()),
                Some((name, _)) => panic!("{name} is not started"),
                None => {}
            }
        }
        let vm = InstanceInfo { hypervisor_pid: Some(pid), uid: Some(0), ..InstanceInfo::default() };
        let vms = VmSet { vms: vec![vm] };
        let mut lacking = || {
            let mut batch = Batch::default();
            readers
                .iter_mut()
                .for_each(|reader| drop(reader.read(&vms, &mut Namespaces::default(), &mut batch)));
            let stats = serde_json::to_value(batch.processes[&pid].stats).unwrap();
            let lacking = stats.as_object().unwrap().iter().filter(|(_, value)| value.is_null());
            lacking.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        // The walk through all pages takes a while.
        let mut deadline = Deadline::after(SOON);
        while lacking() != may_lack {
            assert!(!deadline.has_passed(), "no reader reads {:?}", lacking());
        }
    }

    #[test]
    fn a_bad_section_names_its_line_and_key() {
        for (text, expected) in [
            ("[readers.proc_stat]\nfast = true", ["test.toml:2", "fast"]),
            (
                "[readers.proc_smaps]\ninterval = \"1ms\"",
                ["test.toml:2", "interval: must be between 1s and 1day"],
            ),
            ("[readers.proc_smaps]\ninterval = \"often\"", ["test.toml:2", "not a duration"]),
            ("[readers.tap_ebpf]\nmax_nics = \"all\"", ["test.toml:2", "max_nics"]),
            ("[readers.tap_ebpf]\nattach = \"xdp\"", ["test.toml:2", "attach"]),
            ("[readers.tap_ebpf]\nmax_nics = 0", ["test.toml:2", "max_nics: 0 is not between"]),
            ("[readers]\nproc_stat = 1", ["test.toml:2", "proc_stat"]),
            ("[readers.proc_sat]", ["test.toml:1", "proc_sat"]),
        ] {
            let error = configs(text).expect_err("must be refused").to_string();
            for part in expected {
                assert!(error.contains(part), "{text:?} gives {error:?} without {part:?}");
            }
        }
    }

    #[test]
    fn the_default_configuration_has_every_reader() {
        for name in READERS.iter().map(|reader| format!("[readers.{}]", reader.name)) {
            assert!(crate::config::DEFAULT.contains(&name), "{name} is not in default.toml");
        }
    }
}
