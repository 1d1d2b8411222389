//! hypeman's own records: `<data_dir>/guests/<id>/metadata.json`.
//!
//! They say what a VM was given and which process it had. After a host has been restarted, and until hypeman has
//! looked, that pid is stale; a VM is listed while its process is a hypervisor that was started for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::error::json_problem;
use super::process_facts::ProcessFacts;
use super::vmm_pid::{Found, VmmPid};
use super::watched_files::{WatchedFiles, names};
use super::written_file::Operators;
use super::{ApiSocket, InstanceSource, Listing, SourceContext, SourceDef, SourceError, Tier, place};
use crate::model::{Hypervisor, InstanceInfo, NetworkLimits, build_instance_info};

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
    tier: Tier::Orchestrator,
    configure: |section, SourceContext { host, trust, facts, .. }| {
        let config: Config = section.options()?;
        if let Some(problem) = config.problem() {
            return Err(section.refusal("tags", &problem));
        }
        let data_dir = place(host, config.data_dir, DEFAULT_DATA_DIR);
        let operators = Operators::new(trust.clone());
        let hypeman = |data_dir: PathBuf| Hypeman {
            tags: config.tags,
            ..Hypeman::new(data_dir.join("guests"), facts.clone(), operators)
        };
        Ok(data_dir.map(|data_dir| Box::new(hypeman(data_dir)) as _))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    data_dir: Option<PathBuf>,
    /// The names of tags that are shown.
    tags: Vec<String>,
}

impl Config {
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
    facts: ProcessFacts,
    operators: Operators,
    guests: PathBuf,
    /// The names of tags that are shown.
    tags: Vec<String>,
    files: WatchedFiles<(Metadata, VmmPid)>,
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
    /// What the guest may receive, in bytes per second; 0 is no limit. So is the next one, of what it may send.
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

/// Go writes `null` for a map that nobody has made.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Hypeman {
    fn new(guests: PathBuf, facts: ProcessFacts, operators: Operators) -> Self {
        Self {
            facts,
            guests,
            tags: Vec::new(),
            files: WatchedFiles::new(operators.clone(), FILE_LIMIT),
            operators,
        }
    }
}

impl InstanceSource for Hypeman {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        let guests = names(&self.guests, &self.operators, &mut listing.problems)?;
        let paths = guests.into_iter().map(|guest| guest.join("metadata.json"));
        self.files.look(paths, |_, content| Ok((parse(content)?, VmmPid::default())));
        listing.problems.extend(self.files.problems());
        for (_, (metadata, seen)) in self.files.values() {
            if let Some(pid) = metadata.hypervisor_pid
                && let Some(found) = seen.check(&self.facts, pid, &metadata.id)
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

    fn socket(&self, found: &Found, vm: &InstanceInfo) -> Option<ApiSocket> {
        let Found { pid, start_ticks, hypervisor } = *found;
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
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::proc_scan::fixture::{Fake, Fixture};
    use super::*;
    use crate::model::Nic;
    use crate::model::Trust;

    const ID: &str = "tz4a98xxat96iws9zmbrgj3a";
    const ARGS: &str =
        "cloud-hypervisor --api-socket /var/lib/hypeman/guests/tz4a98xxat96iws9zmbrgj3a/ch.sock";

    /// As Go's `json.MarshalIndent` writes hypeman's `StoredMetadata`.
    const RUNNING: &str = r#"{
  "Id": "tz4a98xxat96iws9zmbrgj3a",
  "Name": "web",
  "Image": "docker.io/library/nginx:alpine",
  "Size": 1073741824,
  "HotplugSize": 3221225472,
  "OverlaySize": 10737418240,
  "Vcpus": 2,
  "NetworkBandwidthDownload": 0,
  "NetworkBandwidthUpload": 0,
  "DiskIOBps": 0,
  "Env": {
    "PASSWORD": "secret"
  },
  "NetworkEnabled": true,
  "IP": "10.100.11.37",
  "MAC": "02:00:00:4a:1c:9e",
  "Volumes": null,
  "CreatedAt": "2026-01-16T11:15:47.123456789-05:00",
  "StartedAt": "2026-01-16T11:15:48.1-05:00",
  "StoppedAt": null,
  "KernelVersion": "ch-6.12.8-kernel-1.2-20251213",
  "HypervisorType": "cloud-hypervisor",
  "HypervisorVersion": "v49.0",
  "HypervisorPID": 100,
  "SocketPath": "/var/lib/hypeman/guests/tz4a98xxat96iws9zmbrgj3a/ch.sock",
  "DataDir": "/var/lib/hypeman/guests/tz4a98xxat96iws9zmbrgj3a",
  "VsockCID": 3141592653,
  "VsockSocket": "/var/lib/hypeman/guests/tz4a98xxat96iws9zmbrgj3a/vsock.sock",
  "Devices": null,
  "GPUProfile": "",
  "GPUMdevUUID": ""
}"#;

    fn vmm(args: &'static str) -> Fake {
        Fake { exe: "/usr/local/bin/cloud-hypervisor", args, ..Fake::default() }
    }

    fn write(guests: &Path, id: &str, content: &str) {
        fs::create_dir_all(guests.join(id)).unwrap();
        fs::write(guests.join(id).join("metadata.json"), content).unwrap();
    }

    fn listed(source: &mut Hypeman) -> (Vec<InstanceInfo>, Vec<String>) {
        let listing = source.list_running_instances_for_metrics().unwrap();
        (listing.instances, listing.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_vm_that_runs_is_as_hypeman_has_it() {
        let host = Fixture::with(&[vmm(ARGS)]);
        let guests = host.path("guests");
        write(&guests, ID, RUNNING);
        // Stopped, and being created.
        write(&guests, "b", &RUNNING.replace("\"HypervisorPID\": 100", "\"HypervisorPID\": null"));
        fs::create_dir(guests.join("c")).unwrap();
        let expected = InstanceInfo {
            id: ID.into(),
            name: "web".into(),
            hypervisor: Hypervisor::CloudHypervisor,
            hypervisor_pid: Some(100),
            nics: vec![Nic::local("hype-tz4a98xx")],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(4 << 30),
            ..InstanceInfo::default()
        };
        let mut source = Hypeman::new(
            guests.clone(),
            ProcessFacts::new(host.host(), Trust::default()),
            Operators::default(),
        );
        assert_eq!(listed(&mut source), (vec![expected.clone()], vec![]));

        write(&guests, ID, &RUNNING.replace("\"NetworkEnabled\": true", "\"NetworkEnabled\": false"));
        assert_eq!(listed(&mut source).0, [InstanceInfo { nics: vec![], ..expected }]);
    }

    /// As the newest hypeman writes it.
    fn newest() -> String {
        let tags = r#""Tags": {"team": "red", "long": "LONG", "secret": "x"}, "RestartPolicy": {"policy": "always"},
            "RestartStatus": {"attempts": 3, "last_reason": "health_check_failed"}, "DiskIOBps"#;
        let record = RUNNING.replace("\"DiskIOBps", tags).replace("LONG", &"ü".repeat(100));
        let record = record.replace("Download\": 0", "Download\": 125000000");
        record.replace("Upload\": 0", "Upload\": 12500000")
    }

    fn listed_with(tags: &[&str], record: &str) -> InstanceInfo {
        let host = Fixture::with(&[vmm(ARGS)]);
        write(&host.path("guests"), ID, record);
        let facts = ProcessFacts::new(host.host(), Trust::default());
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let mut source = Hypeman { tags, ..Hypeman::new(host.path("guests"), facts, Operators::default()) };
        let (mut vms, problems) = listed(&mut source);
        assert_eq!(problems, [""; 0]);
        vms.remove(0)
    }

    #[test]
    fn limits_are_those_of_the_guest() {
        let vm = listed_with(&[], &newest());
        let limits = vm.network_limits;
        let expected = (Some(125_000_000), Some(12_500_000));
        assert_eq!((limits.rx_bytes_per_second, limits.tx_bytes_per_second), expected);
        let none = listed_with(&[], RUNNING);
        assert_eq!((none.network_limits, none.restart_attempts), (NetworkLimits::default(), None));
    }

    #[test]
    fn restarts_are_told_where_there_is_a_policy() {
        assert_eq!(listed_with(&[], &newest()).restart_attempts, Some(3));
        let stable = newest().replace("\"attempts\": 3, ", "");
        assert_eq!(listed_with(&[], &stable).restart_attempts, Some(0));
        let never = newest().replace(r#"{"policy": "always"}"#, "null");
        assert_eq!(listed_with(&[], &never).restart_attempts, None);
    }

    #[test]
    fn only_named_tags_are_shown_and_long_values_are_cut() {
        assert_eq!(listed_with(&[], &newest()).tags, BTreeMap::new());
        let tags = listed_with(&["team", "long", "absent"], &newest()).tags;
        let expected = [("long".to_owned(), "ü".repeat(64)), ("team".to_owned(), "red".to_owned())];
        assert_eq!(tags, expected.into());
        let null = RUNNING.replace("\"DiskIOBps", "\"Tags\": null, \"RestartStatus\": null, \"DiskIOBps");
        assert_eq!(listed_with(&["team"], &null).tags, BTreeMap::new());
    }

    #[test]
    fn a_stale_pid_is_a_vm_that_does_not_run() {
        let host =
            Fixture::with(&[vmm("cloud-hypervisor --api-socket /var/lib/hypeman/guests/other/ch.sock")]);
        write(&host.path("guests"), ID, RUNNING);
        let mut source = Hypeman::new(
            host.path("guests"),
            ProcessFacts::new(host.host(), Trust::default()),
            Operators::default(),
        );
        assert_eq!(listed(&mut source), (vec![], vec![]));
        host.put(&Fake { exe: "/usr/sbin/sshd", args: "sshd", start: 6000, ..Fake::default() });
        assert_eq!(listed(&mut source), (vec![], vec![]));
        host.put(&Fake { start: 7000, ..vmm(ARGS) });
        assert_eq!(listed(&mut source).0.len(), 1);
        host.end(100);
        assert_eq!(listed(&mut source), (vec![], vec![]));
    }

    #[test]
    fn a_bad_record_is_one_problem_and_half_a_record_changes_nothing() {
        let host = Fixture::with(&[vmm(ARGS)]);
        let guests = host.path("guests");
        write(&guests, ID, RUNNING);
        write(&guests, "bad", "{\"Id\": \"bad\", \"Size\": \"4GB\"}");
        let mut source = Hypeman::new(
            guests.clone(),
            ProcessFacts::new(host.host(), Trust::default()),
            Operators::default(),
        );
        let bad = guests.join("bad/metadata.json");
        let problem =
            format!("{}: no metadata of hypeman: unexpected value at line 1, column 27", bad.display());
        let (vms, problems) = listed(&mut source);
        assert_eq!((vms.len(), problems), (1, vec![problem]));

        fs::remove_dir_all(guests.join("bad")).unwrap();
        write(&guests, ID, &RUNNING[..300]);
        let (vms, problems) = listed(&mut source);
        assert_eq!((vms.len(), problems.len()), (1, 1));
        assert!(problems[0].contains("bad JSON at line") && !problems[0].contains("secret"), "{problems:?}");
        write(&guests, ID, "{}");
        assert!(listed(&mut source).1[0].contains("it has no Id"));
        fs::remove_dir_all(&guests).unwrap();
        assert!(matches!(source.list_running_instances_for_metrics(), Err(SourceError::Absent { .. })));
    }
}
