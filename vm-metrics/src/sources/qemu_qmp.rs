//! QEMU's monitor (QMP): name and uuid, the vCPUs and memory that are plugged in, and what the balloon leaves.
//!
//! A monitor has one client at a time. To an orchestrator that has only one, we would be in the way: so only sockets in
//! a directory made for it, or that the configuration names, are asked, each for some milliseconds. Where somebody is
//! connected already, QEMU lets us wait; we leave after the deadline, unheard.

mod network;

use std::path::PathBuf;

use glob::{Pattern, glob};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;

use self::network::{INFO_NETWORK, uncounted};
use super::vmm_api::{ANSWER_LIMIT, Answering, AskError, Facts, Target, VmmApi};
use super::{InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier, bounded, shortened};
use crate::model::{Hypervisor, InstanceInfo, VmState};

const DEFAULT_SOCKETS: &str = "/run/vm-metrics/qmp/*.sock";

/// Each is a look per tick.
const MAX_SOCKETS: usize = 16_384;

pub const SOURCE: SourceDef = SourceDef {
    name: "qemu_qmp",
    help: "QEMU monitor sockets that are there for this daemon",
    tier: Tier::Vmm,
    configure: |section, context @ SourceContext { host, .. }| {
        let config: Config = section.options()?;
        let default = || host.is_this_kernel().then(|| vec![DEFAULT_SOCKETS.to_owned()]);
        let Some(patterns) = config.sockets.or_else(default) else { return Ok(None) };
        for pattern in &patterns {
            Pattern::new(pattern)
                .map_err(|error| section.refusal("sockets", &format!("{pattern:?}: {error}")))?;
        }
        Ok(Some(Box::new(Qmp { api: VmmApi::new(context, ask), patterns, had_sockets: false })))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    sockets: Option<Vec<String>>,
}

#[derive(Debug)]
struct Qmp {
    api: VmmApi,
    patterns: Vec<String>,
    /// There was a socket once: that there is none now means that its VM has ended.
    had_sockets: bool,
}

impl InstanceSource for Qmp {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let sockets = sockets(&self.patterns);
        self.had_sockets |= !sockets.is_empty();
        if !self.had_sockets {
            return Err(SourceError::Absent { path: self.patterns.join(", ").into() });
        }
        let targets = sockets.into_iter().map(|path| (Target { process: None, path }, Vec::new()));
        self.api.list(targets)
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

pub(super) fn ask(stream: UnixStream) -> Answering {
    Box::pin(talk(stream))
}

async fn talk(stream: UnixStream) -> Result<Facts, AskError> {
    let mut monitor = Monitor::new(stream);
    let greeting: Greeting = monitor.line("no monitor of QEMU").await?;
    if greeting.qmp.is_none() {
        return Err(AskError::Answer("no monitor of QEMU: it does not begin with a greeting".to_owned()));
    }
    monitor.execute::<IgnoredAny>("qmp_capabilities").await?;
    let name: Name = monitor.execute("query-name").await?;
    let uuid: Uuid = monitor.execute("query-uuid").await?;
    let cpus: Vec<Cpu> = monitor.execute("query-cpus-fast").await?;
    let memory: MemorySummary = monitor.execute("query-memory-size-summary").await?;
    let status: Status = monitor.execute("query-status").await?;
    // An error for a VM without a balloon.
    let balloon = monitor.execute::<Balloon>("query-balloon").await.ok();
    // There is no other way to ask it for backends. A QEMU without that command says so.
    let network = monitor.execute_with::<String>("human-monitor-command", INFO_NETWORK).await.ok();
    let (uncounted, has_more_nics) = uncounted(&network.unwrap_or_default());
    let name = shortened(&name.name.unwrap_or_default());
    let uuid =
        Some(shortened(&uuid.uuid)).filter(|uuid| uuid.bytes().any(|byte| !matches!(byte, b'0' | b'-')));
    let info = InstanceInfo {
        id: uuid.unwrap_or_else(|| name.clone()),
        name,
        hypervisor: Hypervisor::Qemu,
        uncounted,
        has_more_nics,
        allocated_vcpus: u32::try_from(cpus.len()).ok().filter(|vcpus| *vcpus <= bounded::MAX_VCPUS),
        allocated_memory_bytes: memory.base_memory.checked_add(memory.plugged_memory),
        actual_memory_bytes: balloon.map(|balloon| balloon.actual),
        state: state(&status),
        ..InstanceInfo::default()
    };
    Ok(Facts { info, unfinished: false })
}

/// QEMU has more words: most say why a VM is paused.
fn state(status: &Status) -> Option<VmState> {
    Some(match status.status.as_str() {
        _ if status.running => VmState::Running,
        "prelaunch" | "preconfig" => VmState::NotStarted,
        "shutdown" | "guest-panicked" | "internal-error" => VmState::Stopped,
        _ => VmState::Paused,
    })
}

/// A connection to a monitor. What it says is a JSON document per line.
struct Monitor {
    stream: BufReader<Take<UnixStream>>,
}

impl Monitor {
    fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream.take(ANSWER_LIMIT as u64)) }
    }

    async fn execute<T: DeserializeOwned>(&mut self, command: &str) -> Result<T, AskError> {
        self.execute_with(command, "{}").await
    }

    async fn execute_with<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &str,
    ) -> Result<T, AskError> {
        let question = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n");
        let stream = self.stream.get_mut().get_mut();
        stream.write_all(question.as_bytes()).await.map_err(|_| AskError::Ended)?;
        loop {
            match self.line::<Line<T>>(command).await? {
                Line { answer: Some(answer), .. } => return Ok(answer),
                // What the monitor says of it is not for the log.
                Line { error: Some(_), .. } => {
                    return Err(AskError::Answer(format!("{command}: refused")));
                }
                // An event, which is for others.
                _ => {}
            }
        }
    }

    async fn line<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, AskError> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await.map_err(|_| AskError::Ended)?;
        if line.last() != Some(&b'\n') {
            let cut = self.stream.get_ref().limit() == 0;
            return Err(if cut { AskError::TooLarge } else { AskError::Ended });
        }
        serde_json::from_slice(&line).map_err(|error| AskError::json(what, &error))
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
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream as Stream};
    use std::thread;

    use super::*;
    use crate::model::{UncountedKind, UncountedNic};

    const GREETING: &str =
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n";

    /// What QEMU 7.2 says, with an event between; the suite `vm` asks a real one.
    const ANSWERS: &str = "{\"return\": {}}\r\n{\"return\": {\"name\": \"web\"}}\r\n\
        {\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}\r\n\
        {\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n\
        {\"return\": [{\"thread-id\": 7, \"cpu-index\": 0}, {\"thread-id\": 8, \"cpu-index\": 1}]}\r\n\
        {\"return\": {\"base-memory\": 134217728, \"plugged-memory\": 67108864}}\r\n\
        {\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n\
        {\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"No balloon device has been activated\"}}\r\n\
        {\"return\": \"e1000.0: index=0,type=nic\\r\\n \\\\ n0: index=0,type=user\\r\\n\"}\r\n";

    fn talk_with(says: &str) -> Result<Facts, String> {
        let (ours, theirs) = Stream::pair().unwrap();
        (&theirs).write_all(says.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        ours.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let facts = runtime.block_on(async { talk(UnixStream::from_std(ours).unwrap()).await });
        facts.map_err(|error| error.to_string())
    }

    #[test]
    fn a_dialogue() {
        let info = talk_with(&format!("{GREETING}{ANSWERS}")).unwrap().info;
        let expected = InstanceInfo {
            id: "web".into(),
            name: "web".into(),
            hypervisor: Hypervisor::Qemu,
            uncounted: vec![UncountedNic { kind: UncountedKind::User, name: "n0".into() }],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(192 << 20),
            state: Some(VmState::Running),
            ..InstanceInfo::default()
        };
        assert_eq!(info, expected);
        let uuid = "6f1b3a7e-0000-4000-8000-000000000001";
        let answers = ANSWERS.replace("00000000-0000-0000-0000-000000000000", uuid);
        assert_eq!(talk_with(&format!("{GREETING}{answers}")).unwrap().info.id, uuid);
        for (said, expected) in [
            ("prelaunch", VmState::NotStarted),
            ("paused", VmState::Paused),
            ("io-error", VmState::Paused),
            ("guest-panicked", VmState::Stopped),
        ] {
            let status = format!("\"{said}\", \"singlestep\": false, \"running\": false");
            let answers = ANSWERS.replace("\"running\", \"singlestep\": false, \"running\": true", &status);
            let facts = talk_with(&format!("{GREETING}{answers}")).unwrap();
            assert_eq!(facts.info.state, Some(expected), "{said}");
        }
    }

    #[test]
    fn names_are_labels_so_long_ones_are_cut() {
        let long = "x".repeat(10_000);
        let answers = ANSWERS
            .replace("00000000-0000-0000-0000-000000000000", &long)
            .replace("\"web\"", &format!("\"{long}\""));
        let info = talk_with(&format!("{GREETING}{answers}")).unwrap().info;
        assert_eq!((info.id.len(), info.name.len()), (256, 256));
    }

    /// As an orchestrator does that hands QEMU the socket.
    #[test]
    fn who_listens_and_is_no_qemu_is_not_the_process_of_the_vm() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("web.sock")).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.write_all(format!("{GREETING}{ANSWERS}").as_bytes()).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let patterns = vec![dir.path().join("*.sock").to_str().unwrap().to_owned()];
        let mut source =
            Qmp { api: VmmApi::new(&SourceContext::default(), ask), patterns, had_sockets: false };
        let vms = source.list_running_instances_for_metrics().unwrap().instances;
        let [web] = &vms[..] else { panic!("{vms:?}") };
        assert_eq!((web.id.as_str(), web.hypervisor_pid), ("web", None));
    }

    #[test]
    fn what_is_no_monitor_is_said_in_a_few_words() {
        for (says, problem) in [
            ("{\"hello\": 1}\n", "no monitor of QEMU: it does not begin with a greeting"),
            ("SSH-2.0-OpenSSH\r\n", "no monitor of QEMU: bad JSON at line 1, column 1"),
            (GREETING, "the connection ended within the answer"),
            ("", "the connection ended within the answer"),
        ] {
            assert_eq!(talk_with(says).unwrap_err(), problem);
        }
        let refused = ANSWERS.replacen("\"return\": {}", "\"error\": {\"class\": \"CommandNotFound\"}", 1);
        assert_eq!(talk_with(&format!("{GREETING}{refused}")).unwrap_err(), "qmp_capabilities: refused");
    }
}
