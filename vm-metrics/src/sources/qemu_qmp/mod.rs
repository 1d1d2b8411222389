//! Source `qemu_qmp`: asks QEMU's monitor for identity, sizes and state of a VM.
//!
//! A monitor has one client at a time, and the daemon must not block an orchestrator. So it queries only sockets in its own
//! directory or of the configuration, each for some milliseconds. QEMU lets a second client wait; the daemon disconnects
//! after the deadline.

mod network;

use std::path::PathBuf;

use glob::{Pattern, glob};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;

use self::network::{INFO_NETWORK, unmonitored};
use super::vmm_api::{ANSWER_LIMIT, QueryError, QueryFuture, Target, VmmApi, VmmInfo};
use super::{Listing, Precedence, Source, SourceContext, SourceDef, SourceError, shortened};
use crate::model::{Hypervisor, InstanceInfo, VmState};
use crate::sources::values::{bounded, uuid};

const DEFAULT_SOCKETS: &str = "/run/vm-metrics/qmp/*.sock";

/// Each is a look per tick.
const MAX_SOCKETS: usize = 16_384;

pub const SOURCE: SourceDef = SourceDef {
    name: "qemu_qmp",
    help: "QEMU monitor sockets that are there for this daemon",
    precedence: Precedence::Vmm,
    config: r#"# QEMU monitors (QMP). A monitor has one client at a time: give QEMU one for this daemon,
# -qmp unix:/run/vm-metrics/qmp/NAME.sock,server=on,wait=off
[sources.qemu_qmp]
enabled = "auto"
# sockets = ["/run/vm-metrics/qmp/*.sock"]
"#,
    configure: |section, context @ SourceContext { host, .. }| {
        let config: QmpConfig = section.options()?;
        let default = || host.is_this_kernel().then(|| vec![DEFAULT_SOCKETS.to_owned()]);
        let Some(patterns) = config.sockets.or_else(default) else { return Ok(None) };
        for pattern in &patterns {
            Pattern::new(pattern)
                .map_err(|error| section.refusal("sockets", &format!("{pattern:?}: {error}")))?;
        }
        Ok(Some(Box::new(Qmp { api: VmmApi::new(context, query), patterns, had_sockets: false })))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct QmpConfig {
    sockets: Option<Vec<String>>,
}

#[derive(Debug)]
struct Qmp {
    api: VmmApi,
    patterns: Vec<String>,
    /// There was a socket once: that there is none now means that its VM has ended.
    had_sockets: bool,
}

impl Source for Qmp {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let sockets = sockets(&self.patterns);
        self.had_sockets |= !sockets.is_empty();
        if !self.had_sockets {
            return Err(SourceError::Absent { path: self.patterns.join(", ").into() });
        }
        let targets = sockets.into_iter().map(|path| (Target { process: None, path }, Vec::new()));
        let mut listing = self.api.list(targets)?;
        for vm in listing.instances.iter_mut().filter(|vm| vm.id.is_empty() && vm.hypervisor_pid.is_none()) {
            vm.id.clone_from(&vm.name);
        }
        Ok(listing)
    }
}

fn sockets(patterns: &[String]) -> Vec<PathBuf> {
    let mut paths: Vec<_> = patterns
        .iter()
        .filter_map(|pattern| glob(pattern).ok())
        .flatten()
        .flatten()
        .take(MAX_SOCKETS)
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

pub(super) fn query(stream: UnixStream) -> QueryFuture {
    Box::pin(talk(stream))
}

async fn talk(stream: UnixStream) -> Result<VmmInfo, QueryError> {
    let mut monitor = Monitor::new(stream);
    let greeting: Greeting = monitor.line("no monitor of QEMU").await?;
    if greeting.qmp.is_none() {
        return Err(QueryError::Response("no monitor of QEMU: it does not begin with a greeting".to_owned()));
    }
    monitor.execute::<IgnoredAny>("qmp_capabilities").await?;
    let name: Name = monitor.execute("query-name").await?;
    let uuid: Uuid = monitor.execute("query-uuid").await?;
    let cpus: Vec<Cpu> = monitor.execute("query-cpus-fast").await?;
    let memory: MemorySummary = monitor.execute("query-memory-size-summary").await?;
    let status: Status = monitor.execute("query-status").await?;
    // An error for a VM without a balloon.
    let balloon = monitor.execute::<Balloon>("query-balloon").await.ok();
    let storage = match memory.plugged_memory {
        0 => Some(0),
        _ => monitor
            .execute("query-memory-devices")
            .await
            .ok()
            .and_then(|devices: Vec<MemoryDevice>| storage(&devices)),
    };
    // QMP has no other command for backends. Old versions answer with an error.
    let network = monitor.execute_with::<String>("human-monitor-command", INFO_NETWORK).await.ok();
    let (unmonitored, has_more_nics) = unmonitored(&network.unwrap_or_default());
    let name = shortened(&name.name.unwrap_or_default());
    let info = InstanceInfo {
        // Many VMs may have the name; the command line may have more than the monitor knows.
        id: uuid::given(&shortened(&uuid.uuid)).unwrap_or_default(),
        name,
        hypervisor: Hypervisor::Qemu,
        unmonitored,
        has_more_nics,
        allocated_vcpus: u32::try_from(cpus.len()).ok().filter(|vcpus| *vcpus <= bounded::MAX_VCPUS),
        allocated_memory_bytes: storage.and_then(|storage| memory.without(storage)),
        actual_memory_bytes: balloon.map(|balloon| balloon.actual),
        state: state(&status),
        ..InstanceInfo::default()
    };
    Ok(VmmInfo { info, unfinished: false })
}

/// QEMU has more states: most are reasons of a pause.
fn state(status: &Status) -> Option<VmState> {
    Some(match status.status.as_str() {
        _ if status.running => VmState::Running,
        "prelaunch" | "preconfig" => VmState::NotStarted,
        "shutdown" | "guest-panicked" | "internal-error" => VmState::Stopped,
        _ => VmState::Paused,
    })
}

/// A connection to a monitor, which sends one JSON document per line.
struct Monitor {
    stream: BufReader<Take<UnixStream>>,
}

impl Monitor {
    fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream.take(ANSWER_LIMIT as u64)) }
    }

    async fn execute<T: DeserializeOwned>(&mut self, command: &str) -> Result<T, QueryError> {
        self.execute_with(command, "{}").await
    }

    async fn execute_with<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &str,
    ) -> Result<T, QueryError> {
        let question = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n");
        let stream = self.stream.get_mut().get_mut();
        stream.write_all(question.as_bytes()).await.map_err(|_| QueryError::Ended)?;
        loop {
            match self.line::<Line<T>>(command).await? {
                Line { answer: Some(answer), .. } => return Ok(answer),
                // The log gets no text of the monitor.
                Line { error: Some(_), .. } => {
                    return Err(QueryError::Response(format!("{command}: refused")));
                }
                // An event, which is for others.
                _ => {}
            }
        }
    }

    async fn line<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, QueryError> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await.map_err(|_| QueryError::Ended)?;
        if line.last() != Some(&b'\n') {
            let cut = self.stream.get_ref().limit() == 0;
            return Err(if cut { QueryError::TooLarge } else { QueryError::Ended });
        }
        serde_json::from_slice(&line).map_err(|error| QueryError::json(what, &error))
    }
}

#[derive(Deserialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    qmp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Line<T> {
    #[serde(rename = "return", default = "Option::default")]
    answer: Option<T>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Name {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Uuid {
    #[serde(rename = "UUID")]
    uuid: String,
}

#[derive(Deserialize)]
struct Cpu {}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MemorySummary {
    #[serde(deserialize_with = "bounded::memory_bytes")]
    base_memory: u64,
    #[serde(default, deserialize_with = "bounded::memory_bytes")]
    plugged_memory: u64,
}

impl MemorySummary {
    /// The sum without storage devices.
    fn without(&self, storage: u64) -> Option<u64> {
        self.base_memory.checked_add(self.plugged_memory.checked_sub(storage)?)
    }
}

/// A device in a memory slot.
#[derive(Deserialize)]
struct MemoryDevice {
    #[serde(rename = "type")]
    kind: String,
    data: MemoryDeviceData,
}

#[derive(Deserialize)]
struct MemoryDeviceData {
    #[serde(default, deserialize_with = "bounded::memory_bytes")]
    size: u64,
}

/// How much of it is storage.
fn storage(devices: &[MemoryDevice]) -> Option<u64> {
    let storage = devices.iter().filter(|device| matches!(&*device.kind, "nvdimm" | "virtio-pmem"));
    storage.map(|device| device.data.size).try_fold(0, u64::checked_add)
}

#[derive(Deserialize)]
struct Status {
    running: bool,
    status: String,
}

#[derive(Deserialize)]
struct Balloon {
    #[serde(deserialize_with = "bounded::memory_bytes")]
    actual: u64,
}

#[cfg(test)]
mod tests;
