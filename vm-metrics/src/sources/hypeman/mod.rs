//! Source `hypeman`: hypeman's own records, `<data_dir>/guests/<id>/metadata.json`.
//!
//! They contain the sizes of a VM and its last pid. After a restart of the host the pid is stale until hypeman updates it.
//! A VM is listed while its process is a hypervisor that was started for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::error::json_problem;
use super::{ApiSocket, Listing, Precedence, Source, SourceContext, SourceDef, SourceError, configured_path};
use crate::model::{Hypervisor, InstanceInfo, NetworkLimits, build_instance_info};
use crate::sources::declared::hypervisor_pid::{HypervisorPid, HypervisorProcess};
use crate::sources::files::watched::WatchedFiles;
use crate::sources::process::lookup::ProcessLookup;

const DEFAULT_DATA_DIR: &str = "/var/lib/hypeman";

/// Some hundred bytes, and the environment that the guest is given.
const FILE_LIMIT: u64 = 1 << 20;

/// Of the names of tags. Each tag is a series of each VM.
const MAX_TAGS: usize = 16;

/// Bytes of a tag's value, which users of hypeman choose.
const MAX_VALUE: usize = 128;

pub const SOURCE: SourceDef = SourceDef {
    name: "hypeman",
    help: "hypeman's records of its VMs",
    precedence: Precedence::Orchestrator,
    config: r#"# hypeman's records, in guests/<id>/metadata.json of its data directory.
[sources.hypeman]
enabled = "auto"
# data_dir = "/var/lib/hypeman"
# Tags of hypeman's users that become series vm_tag_info{tag,value}, 16 at most.
# tags = ["team"]
"#,
    configure: |section, context| {
        let config: HypemanConfig = section.options()?;
        if let Some(problem) = config.problem() {
            return Err(section.refusal("tags", &problem));
        }
        let data_dir = configured_path(&context.host, config.data_dir, DEFAULT_DATA_DIR);
        let hypeman = |data_dir: PathBuf| Hypeman::new(data_dir.join("guests"), config.tags, context);
        Ok(data_dir.map(|data_dir| Box::new(hypeman(data_dir)) as _))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HypemanConfig {
    data_dir: Option<PathBuf>,
    /// The names of tags that are shown.
    tags: Vec<String>,
}

impl HypemanConfig {
    fn problem(&self) -> Option<String> {
        let is_bad = |tag: &&String| tag.is_empty() || tag.len() > MAX_VALUE;
        match self.tags.iter().find(is_bad) {
            Some(tag) => Some(format!("{tag:?} is no name of a tag: it must have 1 to {MAX_VALUE} bytes")),
            None if self.tags.len() > MAX_TAGS => Some(format!("at most {MAX_TAGS} tags can be shown")),
            None => None,
        }
    }
}

#[derive(Debug)]
struct Hypeman {
    processes: ProcessLookup,
    guests: PathBuf,
    /// The names of tags that are shown.
    tags: Vec<String>,
    files: WatchedFiles<(Metadata, HypervisorPid)>,
}

/// Those of hypeman's fields that are of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    id: String,
    name: String,
    /// Bytes, as the next one.
    size: u64,
    hotplug_size: u64,
    vcpus: u32,
    network_enabled: bool,
    #[serde(rename = "HypervisorPID")]
    hypervisor_pid: Option<u32>,
    /// Where the VMM can be asked.
    socket_path: Option<PathBuf>,
    /// The receive limit of the guest in bytes per second; 0 is no limit. The next one limits sending.
    network_bandwidth_download: u64,
    network_bandwidth_upload: u64,
    #[serde(deserialize_with = "or_default")]
    tags: BTreeMap<String, String>,
    /// `None` where hypeman does not start the VM again.
    restart_policy: Option<serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    restart_status: RestartStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RestartStatus {
    /// Begins at 0 again when the VM has run well for a while.
    attempts: u64,
}

/// Go writes `null` for a nil map.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Hypeman {
    fn new(guests: PathBuf, tags: Vec<String>, context: &SourceContext) -> Self {
        let files = WatchedFiles::new(context.operators.clone(), FILE_LIMIT);
        Self { processes: context.processes.clone(), guests, tags, files }
    }
}

impl Source for Hypeman {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        let guests = self.files.names(&self.guests, &mut listing.problems)?;
        let paths = guests.into_iter().map(|guest| guest.join("metadata.json"));
        let parse = |_: &Path, content: &[u8]| Ok((parse(content)?, HypervisorPid::default()));
        for (_, (metadata, guard)) in self.files.look(paths, &mut listing.problems, parse) {
            if let Some(pid) = metadata.hypervisor_pid
                && let Some(found) = guard.check(&self.processes, pid, &metadata.id)
            {
                let vm = metadata.instance(pid, found.hypervisor, &self.tags);
                listing.sockets.extend(metadata.socket(&found, &vm));
                listing.instances.push(vm);
            }
        }
        Ok(listing)
    }
}

impl Metadata {
    fn instance(&self, pid: u32, hypervisor: Hypervisor, tags: &[String]) -> InstanceInfo {
        let memory = self.size.saturating_add(self.hotplug_size);
        let info =
            build_instance_info(&self.id, &self.name, Some(pid), self.network_enabled, self.vcpus, memory);
        let limit = |bytes: u64| (bytes > 0).then_some(bytes);
        InstanceInfo {
            hypervisor,
            network_limits: NetworkLimits {
                rx_bytes_per_second: limit(self.network_bandwidth_download),
                tx_bytes_per_second: limit(self.network_bandwidth_upload),
            },
            tags: tags.iter().filter_map(|tag| Some((tag.clone(), self.tag(tag)?))).collect(),
            restart_attempts: self.restart_policy.map(|_| self.restart_status.attempts),
            ..info
        }
    }

    fn tag(&self, name: &str) -> Option<String> {
        let value = self.tags.get(name)?;
        Some(value[..value.floor_char_boundary(MAX_VALUE)].to_owned())
    }

    fn socket(&self, found: &HypervisorProcess, vm: &InstanceInfo) -> Option<ApiSocket> {
        let HypervisorProcess { pid, start_ticks, hypervisor } = *found;
        let path = self.socket_path.clone()?;
        Some(ApiSocket { hypervisor, pid, start_ticks, path, nics: vm.nics.clone() })
    }
}

fn parse(content: &[u8]) -> Result<Metadata, String> {
    let metadata: Metadata = serde_json::from_slice(content)
        .map_err(|error| format!("no metadata of hypeman: {}", json_problem(&error)))?;
    if metadata.id.is_empty() {
        return Err("no metadata of hypeman: it has no Id".to_owned());
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests;
