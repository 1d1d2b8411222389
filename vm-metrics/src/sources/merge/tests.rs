//! Tests of the merge of several sources.

use std::collections::HashSet;
use std::slice::from_ref;

use proptest::prelude::*;

use super::evidence::{LocalDevice, ProcessEvidence};
use super::precedence::FACTS;
use super::*;
use crate::model::{NetworkLimits, Trust, VmState};

mod nics;
mod strangers;
mod twins;

const RETENTION: Duration = Duration::from_secs(300);

/// A host on which processes hold what a test says, with a merge that goes on from call to call.
struct World {
    merge: Merge,
    processes: ProcessTable,
    devices: Vec<(&'static str, LocalDevice)>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let (processes, now) = (ProcessTable::new(), Instant::now());
        Self { merge: Merge::new(RETENTION, String::new()), processes, devices: Vec::new(), now }
    }

    /// Another daemon goes on with what this one has left.
    fn restart(&mut self) {
        let left: Vec<_> =
            self.merge.ids.records.iter().map(|(id, record)| (id.clone(), record.clone())).collect();
        self.merge = Merge::new(RETENTION, String::new());
        self.merge.restore(left);
    }

    /// The kernel says that this process holds these devices.
    fn holds(&mut self, pid: u32, uid: u32, nics: &[Nic]) {
        let (uid, nics) = (Some(uid), nics.to_vec());
        let evidence = ProcessEvidence {
            start_ticks: pid.into(),
            uid,
            is_looked_at: true,
            nics,
            ..ProcessEvidence::default()
        };
        self.processes.insert(pid, evidence);
    }

    fn merge(&mut self, told: Vec<SourceListing>) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
        let device = |name: &str| {
            let known = self.devices.iter().find(|(known, _)| *known == name);
            known.map_or(LocalDevice::Absent, |(_, kind)| *kind)
        };
        let evidence = Evidence { trust: &Trust::default(), processes: &self.processes, device: &device };
        let (vms, problems, _) = self.merge.merge(told, evidence, self.now);
        (vms, problems)
    }
}

fn listing_of(precedence: Precedence, instances: Vec<InstanceInfo>) -> SourceListing {
    SourceListing { instances, ..SourceListing::nothing(precedence) }
}

/// Merges listings of precedences. Each process is root's and holds the NICs of its entry.
fn merge_precedences(
    listings: Vec<(Precedence, Vec<InstanceInfo>)>,
) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    let mut world = World::new();
    for vm in
        listings.iter().filter(|(precedence, _)| *precedence == Precedence::Process).flat_map(|(_, vms)| vms)
    {
        if let Some(pid) = vm.hypervisor_pid {
            world.holds(pid, 0, &vm.nics);
        }
    }
    world.merge(listings.into_iter().map(|(precedence, vms)| listing_of(precedence, vms)).collect())
}

/// Merges listings in the order of precedence. The last of several is that of the processes.
fn merge_listings(listings: Vec<Vec<InstanceInfo>>) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    let last = listings.len().saturating_sub(1);
    let precedence = |at: usize| if at > 0 && at == last { Precedence::Process } else { FACTS[at] };
    merge_precedences(listings.into_iter().enumerate().map(|(at, vms)| (precedence(at), vms)).collect())
}

fn vm(id: &str, pid: Option<u32>) -> InstanceInfo {
    let uid = pid.map(|_| 0);
    InstanceInfo { id: id.into(), name: id.into(), hypervisor_pid: pid, uid, ..InstanceInfo::default() }
}

fn found(pid: u32) -> InstanceInfo {
    InstanceInfo {
        id: "uuid".into(),
        name: "guest".into(),
        hypervisor: Hypervisor::Qemu,
        hypervisor_pid: Some(pid),
        uid: Some(0),
        nics: vec![Nic::local(format!("tap{pid}"))],
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(1 << 30),
        actual_memory_bytes: Some(1 << 29),
        state: Some(VmState::Paused),
        project: Some("p".into()),
        namespace: Some("n".into()),
        pod_uid: Some("u".into()),
        tags: [("team".to_owned(), "red".to_owned())].into(),
        network_limits: NetworkLimits { rx_bytes_per_second: Some(5), tx_bytes_per_second: Some(6) },
        restart_attempts: Some(3),
        ..InstanceInfo::default()
    }
}

fn ids(listings: Vec<Vec<InstanceInfo>>) -> (Vec<String>, Vec<Vec<String>>) {
    let (vms, problems) = merge_listings(listings);
    (vms.into_iter().map(|vm| shape(&vm.id)).collect(), problems)
}

/// With `*` for the six digits of a suffix.
fn shape(id: &str) -> String {
    let is_suffix = |suffix: &&str| suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let without = id.rsplit_once('-').filter(|(_, suffix)| is_suffix(suffix));
    without.map_or_else(|| id.to_owned(), |(plain, _)| format!("{plain}-*"))
}

/// Later entries fill the gaps of the first.
#[test]
fn entries_of_one_process_are_one_vm() {
    let (vms, problems) = merge_listings(vec![vec![vm("web", Some(7))], vec![found(7), found(8)]]);
    let web = InstanceInfo { id: "web".into(), name: "web".into(), ..found(7) };
    assert_eq!(vms, [web, found(8)]);
    assert!(problems.concat().is_empty());
}

#[test]
fn the_first_word_counts() {
    let first = InstanceInfo {
        nics: vec![Nic::local("mine")],
        allocated_vcpus: Some(1),
        hypervisor: Hypervisor::Firecracker,
        state: Some(VmState::Running),
        ..vm("web", Some(7))
    };
    let (vms, _) = merge_listings(vec![vec![first.clone()], vec![found(7)]]);
    let expected = InstanceInfo {
        id: first.id,
        name: first.name,
        allocated_vcpus: first.allocated_vcpus,
        hypervisor: first.hypervisor,
        state: first.state,
        // The process holds one more than the operator names.
        nics: vec![Nic::local("mine"), Nic::local("tap7")],
        ..found(7)
    };
    assert_eq!(vms, [expected]);
}

#[test]
fn one_id_with_two_processes_is_two_vms() {
    let (vms, problems) = merge_listings(vec![vec![vm("uuid", None)], vec![found(7)]]);
    assert_eq!((vms.len(), vms[0].hypervisor_pid), (1, Some(7)));
    assert!(problems.concat().is_empty());
    let (ids, problems) = ids(vec![vec![vm("uuid", Some(6))], vec![found(7)]]);
    assert_eq!(ids, ["uuid", "uuid-*"]);
    assert!(
        problems[0].is_empty() && problems[1][0].starts_with("two VMs with the id \"uuid\": one is \"uuid-")
    );
}

/// The next process with the id gets its description.
#[test]
fn an_ended_vm_disputes_no_id() {
    let mut world = World::new();
    let mut merged = |pushed: Vec<InstanceInfo>, ended: Vec<InstanceInfo>, processes: &[u32]| {
        let pushed = SourceListing { instances: pushed, ended, ..SourceListing::nothing(Precedence::Pushed) };
        let instances = processes.iter().map(|pid| vm("web", Some(*pid))).collect();
        let found = SourceListing { instances, ..SourceListing::nothing(Precedence::Process) };
        let (vms, _) = world.merge(vec![pushed, found]);
        vms.into_iter().map(|vm| (shape(&vm.id), vm.hypervisor_pid.unwrap(), vm.name)).collect::<Vec<_>>()
    };
    let web = |pid| InstanceInfo { name: "shop".into(), ..vm("web", pid) };
    let shop = |pid| ("web".to_owned(), pid, "shop".to_owned());
    assert_eq!(merged(vec![web(Some(1))], vec![], &[1]), [shop(1)]);
    assert_eq!(merged(vec![], vec![web(None)], &[2]), [shop(2)]);
    assert_eq!(merged(vec![web(Some(2))], vec![], &[2]), [shop(2)]);
    assert_eq!(merged(vec![], vec![web(None)], &[]), []);
    // A file for each process.
    assert_eq!(merged(vec![web(Some(3))], vec![web(None)], &[3]), [shop(3)]);

    // Both are there for a while.
    let other = ("web-*".to_owned(), 4, "web".to_owned());
    for _ in 0..2 {
        assert_eq!(merged(vec![web(Some(3))], vec![], &[4, 3]), [shop(3), other.clone()]);
    }
    assert_eq!(merged(vec![web(Some(4))], vec![], &[4]), [shop(4)], "it was pushed with this id");
}

/// A process that it lists twice is one VM.
#[test]
fn one_source_may_list_an_id_twice() {
    let (got, problems) =
        ids(vec![vec![vm("a", Some(1)), vm("a", Some(2)), vm("a-2", Some(3)), vm("b", Some(1))]]);
    assert_eq!(got, ["a-*", "a-*", "a-2"]);
    assert_eq!(problems[0].len(), 3);
    assert_eq!(problems[0][0], "\"b\" left out: process 1 is \"a\" already");
    let (got, _) = ids(vec![vec![vm("a", None), vm("a", None)]]);
    assert_eq!(got, ["a", "a-#1"]);
}

#[test]
fn known_vcpus_need_no_limit() {
    let sized =
        |allocated_vcpus, max_vcpus| InstanceInfo { allocated_vcpus, max_vcpus, ..vm("web", Some(7)) };
    for (listed, expected) in [
        ([sized(Some(3), None), sized(Some(1), Some(12))], (Some(3), None)),
        ([sized(None, None), sized(Some(1), Some(12))], (Some(1), Some(12))),
        ([sized(None, Some(12)), sized(None, None)], (None, Some(12))),
        ([sized(None, Some(12)), sized(Some(3), None)], (Some(3), None)),
    ] {
        let (vms, _) = merge_listings(listed.clone().map(|vm| vec![vm]).to_vec());
        assert_eq!((vms[0].allocated_vcpus, vms[0].max_vcpus), expected, "{listed:?}");
    }
}

#[test]
fn a_missing_id_comes_from_another_source() {
    let vmm = InstanceInfo { allocated_vcpus: Some(4), ..vm("", Some(7)) };
    let other = InstanceInfo { hypervisor: Hypervisor::Qemu, ..vm("", Some(9)) };
    let (vms, problems) = merge_listings(vec![vec![vmm, other], vec![found(7)]]);
    assert_eq!(vms[0], InstanceInfo { allocated_vcpus: Some(4), ..found(7) });
    assert_eq!((vms[1].id.as_str(), vms[1].name.as_str()), ("qemu-9", "qemu-9"));
    assert!(problems.concat().is_empty());
}

/// Of a static entry, a pushed VM or a command line.
#[test]
fn uuids_join_in_any_case() {
    let uuid = "6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55";
    let upper = vm(&uuid.to_ascii_uppercase(), None);
    let (vms, problems) = merge_listings(vec![vec![upper], vec![vm(uuid, Some(7))]]);
    assert_eq!((vms.len(), vms[0].id.as_str(), vms[0].hypervisor_pid), (1, uuid, Some(7)));
    assert!(problems.concat().is_empty());
}

/// As a monitor of QEMU knows it, where the process is not scanned.
#[test]
fn a_name_replaces_a_missing_id() {
    let monitor = |pid| InstanceInfo { name: "ubuntu".into(), ..vm("", Some(pid)) };
    let (vms, _) = merge_precedences(vec![(Precedence::Vmm, vec![monitor(7)])]);
    assert_eq!(vms[0].id, "ubuntu");
    let scanned = InstanceInfo { name: "ubuntu".into(), ..vm("121", Some(7)) };
    let (vms, _) =
        merge_precedences(vec![(Precedence::Vmm, vec![monitor(7)]), (Precedence::Process, vec![scanned])]);
    assert_eq!(vms[0].id, "121");
}

proptest! {
    #[test]
    fn ids_and_processes_are_unique(
        listings in prop::collection::vec(
            prop::collection::vec(("[ab](-[12]){0,2}", prop::option::of(1..4_u32)), 0..6), 0..4,
        ),
    ) {
        let listings: Vec<Vec<_>> =
            listings.iter().map(|listing| listing.iter().map(|(id, pid)| vm(id, *pid)).collect()).collect();
        let pids: HashSet<_> = listings.iter().flatten().filter_map(|vm| vm.hypervisor_pid).collect();
        let (merged, problems) = merge_listings(listings.clone());
        let ids: HashSet<_> = merged.iter().map(|vm| &vm.id).collect();
        let merged_pids: Vec<_> = merged.iter().filter_map(|vm| vm.hypervisor_pid).collect();
        prop_assert_eq!(ids.len(), merged.len());
        prop_assert_eq!(merged_pids.len(), pids.len());
        prop_assert_eq!(merged_pids.into_iter().collect::<HashSet<_>>(), pids);
        prop_assert_eq!(problems.len(), listings.len());
    }
}
