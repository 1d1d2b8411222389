//! Tests of libvirt's records.

use std::fs;
use std::time::Duration;

use super::super::proc_scan::fixture::{Fake, Fixture};
use super::*;
use crate::sources::tests::listed;

const ARGS: &str = "qemu-system-x86_64 -name guest=web -uuid 01234567-89AB-4cde-8f01-23456789abcd";

/// A host with a directory of records.
struct Case {
    host: Fixture,
    dir: PathBuf,
    source: Libvirt,
}

impl Case {
    fn new() -> Self {
        let host = Fixture::new();
        let dir = host.path("libvirt");
        fs::create_dir(&dir).unwrap();
        let source = Libvirt::new(RecordDirs::One(dir.clone()), &host.context());
        Self { host, dir, source }
    }

    fn write(&self, name: &str) {
        fs::write(self.dir.join(name), status::tests::REAL).unwrap();
    }

    fn run(&self, exe: &'static str, args: &'static str) {
        self.host.put(&Fake { pid: 5854, exe, args, ..Fake::QEMU });
    }

    fn listed(&mut self) -> (Vec<InstanceInfo>, Vec<String>) {
        listed(&mut self.source)
    }
}

#[test]
fn a_domain_lives_as_long_as_its_process() {
    let mut case = Case::new();
    case.run("/usr/bin/qemu-system-x86_64", ARGS);
    case.write("web 1.xml");
    fs::write(case.dir.join("web 1.pid"), "5854").unwrap();
    fs::write(case.dir.join("bad.xml"), "<domstatus").unwrap();
    let (vms, problems) = case.listed();
    assert_eq!(vms.len(), 1);
    assert_eq!((vms[0].hypervisor, vms[0].hypervisor_pid), (Hypervisor::Qemu, Some(5854)));
    assert_eq!(vms[0].nics, [Nic::local("vnet0")]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with(&format!("{}: ", case.dir.join("bad.xml").display())), "{problems:?}");

    // The record was left over, and the pid is somebody else's.
    case.host.put(&Fake { pid: 5854, start: 6000, ..Fake::QEMU });
    assert_eq!(case.listed().0, []);
}

#[test]
fn a_hidden_domain_is_listed() {
    let mut case = Case::new();
    case.run("/usr/bin/qemu-system-x86_64", ARGS);
    case.write(".hidden.xml");
    assert_eq!(case.listed().0.len(), 1);
}

#[test]
fn paths_or_start_time_identify_cloud_hypervisor() {
    let dir = Path::new("/run/libvirt/ch");
    let domain = status::parse(status::tests::REAL.as_bytes()).unwrap();
    let is_it = |line: &str, written: Option<SystemTime>| {
        let argv = line.split(' ').map(str::to_owned).collect();
        let candidate = Candidate { hypervisor: Hypervisor::CloudHypervisor, argv, start_ticks: 1 };
        domain.is_run_by(&candidate, &dir.join("web.xml"), written)
    };
    let now = Some(SystemTime::now());
    assert!(is_it("ch --api-socket /run/libvirt/ch/web-socket", None));
    let events = "ch --api-socket fd=25 --event-monitor path=/run/libvirt/ch/web-event-monitor-fifo";
    assert!(is_it(events, None));
    assert!(is_it("ch --api-socket fd=25", now), "it was there when the record was written");
    let before_the_boot = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert!(!is_it("ch --api-socket fd=25", before_the_boot) && !is_it("ch --api-socket fd=25", None));
    assert!(!is_it(&events.replace("web", "other"), now));
    assert!(!is_it("ch --api-socket /run/libvirt/ch/other-socket", now));
}

#[test]
fn a_domain_of_cloud_hypervisor_is_listed() {
    let mut case = Case::new();
    case.run("/usr/bin/cloud-hypervisor", "cloud-hypervisor --api-socket fd=25");
    case.write("web.xml");
    let (vms, _) = case.listed();
    assert_eq!(vms.len(), 1);
    assert_eq!((vms[0].hypervisor, vms[0].name.as_str()), (Hypervisor::CloudHypervisor, "web 1"));
}

#[test]
fn without_a_place_the_source_is_absent() {
    let case = Case::new();
    let missing = RecordDirs::One(case.host.path("missing"));
    let mut source = Libvirt::new(missing, &case.host.context());
    let error = source.list().unwrap_err();
    assert!(matches!(error, SourceError::Absent { .. }), "{error}");
}
