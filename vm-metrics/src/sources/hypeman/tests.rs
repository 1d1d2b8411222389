//! Tests of hypeman's records.

use std::fs;

use super::super::proc_scan::fixture::{Fake, Fixture};
use super::*;
use crate::model::Nic;
use crate::sources::tests::listed;

const ID: &str = "tz4a98xxat96iws9zmbrgj3a";
const ARGS: &str = "cloud-hypervisor --api-socket /var/lib/hypeman/guests/tz4a98xxat96iws9zmbrgj3a/ch.sock";

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
    Fake { exe: "/usr/local/bin/cloud-hypervisor", args, ..Fake::QEMU }
}

fn write(guests: &Path, id: &str, content: &str) {
    fs::create_dir_all(guests.join(id)).unwrap();
    fs::write(guests.join(id).join("metadata.json"), content).unwrap();
}

#[test]
fn a_running_vm_is_as_in_its_record() {
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
    let mut source = Hypeman::new(guests.clone(), Vec::new(), &host.context());
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
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let mut source = Hypeman::new(host.path("guests"), tags, &host.context());
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

/// Long values are cut.
#[test]
fn only_configured_tags_are_shown() {
    assert_eq!(listed_with(&[], &newest()).tags, BTreeMap::new());
    let tags = listed_with(&["team", "long", "absent"], &newest()).tags;
    let expected = [("long".to_owned(), "ü".repeat(64)), ("team".to_owned(), "red".to_owned())];
    assert_eq!(tags, expected.into());
    let null = RUNNING.replace("\"DiskIOBps", "\"Tags\": null, \"RestartStatus\": null, \"DiskIOBps");
    assert_eq!(listed_with(&["team"], &null).tags, BTreeMap::new());
}

#[test]
fn a_vm_with_a_stale_pid_has_ended() {
    let host = Fixture::with(&[vmm("cloud-hypervisor --api-socket /var/lib/hypeman/guests/other/ch.sock")]);
    write(&host.path("guests"), ID, RUNNING);
    let mut source = Hypeman::new(host.path("guests"), Vec::new(), &host.context());
    assert_eq!(listed(&mut source), (vec![], vec![]));
    host.put(&Fake { exe: "/usr/sbin/sshd", args: "sshd", start: 6000, ..Fake::QEMU });
    assert_eq!(listed(&mut source), (vec![], vec![]));
    host.put(&Fake { start: 7000, ..vmm(ARGS) });
    assert_eq!(listed(&mut source).0.len(), 1);
    host.end(100);
    assert_eq!(listed(&mut source), (vec![], vec![]));
}

/// Half a record changes nothing.
#[test]
fn a_bad_record_is_one_problem() {
    let host = Fixture::with(&[vmm(ARGS)]);
    let guests = host.path("guests");
    write(&guests, ID, RUNNING);
    write(&guests, "bad", "{\"Id\": \"bad\", \"Size\": \"4GB\"}");
    let mut source = Hypeman::new(guests.clone(), Vec::new(), &host.context());
    let bad = guests.join("bad/metadata.json");
    let problem = format!("{}: no metadata of hypeman: unexpected value at line 1, column 27", bad.display());
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
    assert!(matches!(source.list(), Err(SourceError::Absent { .. })));
}
