//! Tests of the shares, the grace time and the single opening of namespaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::{Batch, InstanceInfo};

fn namespaces(max_of_others: u64) -> Namespaces {
    Namespaces { max_of_others, ..Namespaces::default() }
}

/// VMs of these users, each in a namespace of its own.
fn vms(users: &[(u32, u64)]) -> VmSet {
    let mut pid = 0;
    let mut vm = |uid: u32| {
        pid += 1;
        let nic = Nic { tap: "tap0".into(), netns: Some(1000 * u64::from(uid) + u64::from(pid)) };
        InstanceInfo { hypervisor_pid: Some(pid), uid: Some(uid), nics: vec![nic], ..InstanceInfo::default() }
    };
    let vms = users.iter().flat_map(|(uid, count)| (0..*count).map(|_| *uid)).map(&mut vm).collect();
    VmSet { vms }
}

fn resolve(namespaces: &mut Namespaces, vms: &VmSet, ended: &[u32]) {
    namespaces.resolve(vms, &mut Batch { ended: ended.iter().copied().collect(), ..Batch::of(vms) });
}

fn is_held(namespaces: &Namespaces, netns: u64) -> bool {
    namespaces.foreign.get(&netns).is_some_and(|known| known.handle.is_some())
}

fn ranked(namespaces: &Namespaces, vms: &VmSet) -> (Vec<u64>, Excess) {
    let wanted = wanted(vms, &HashSet::new(), &namespaces.trust);
    let (order, overuse) = namespaces.within_shares(&wanted);
    (order.iter().map(|netns| netns / 1000).collect(), overuse)
}

#[test]
fn a_stranger_cannot_take_all_namespaces() {
    let (users, overuse) = ranked(&namespaces(10), &vms(&[(7, 100), (0, 20), (9, 3)]));
    assert_eq!(users[..20], [0; 20], "root is not cut, and comes first");
    assert_eq!(users[20..], [7, 9, 7, 9, 7, 9, 7, 7, 7, 7]);
    let mut expected = Excess::default();
    expected.add(Some(7), RESOURCE, 93);
    assert_eq!(overuse, expected);
}

#[test]
fn a_trusted_users_vm_makes_its_namespace_trusted() {
    let mut vms = vms(&[(7, 1), (0, 1)]);
    let netns = vms.vms[0].nics[0].netns;
    vms.vms[1].nics[0].netns = netns;
    let tenant = |ended: &[u32]| {
        let ended = ended.iter().copied().collect();
        wanted(&vms, &ended, &Trust::default()).remove(&netns.unwrap()).map(|wanted| wanted.tenant)
    };
    assert_eq!(tenant(&[]), Some(Tenant::Trusted));
    assert_eq!(tenant(&[2]), Some(Tenant::Other(Some(7))));
    assert_eq!(tenant(&[1, 2]), None, "nobody is there any more");
}

#[test]
fn a_namespace_waits_for_a_recreated_tap() {
    let mut namespaces = namespaces(10);
    let own = namespaces.host.own_netns().unwrap();
    let vm = |nics| vec![vm_of_test(nics)];
    let nic = Nic { tap: "tap0".into(), netns: Some(own) };
    let mut is_open = |vms: Vec<InstanceInfo>, ended: &[u32]| {
        resolve(&mut namespaces, &VmSet { vms }, ended);
        namespaces.end_tick(|_| true);
        is_held(&namespaces, own)
    };
    assert!(is_open(vm(vec![nic.clone()]), &[]));
    assert!(is_open(vm(Vec::new()), &[]));
    assert!(!is_open(vm(Vec::new()), &[std::process::id()]), "its process has ended");
    assert!(is_open(vm(vec![nic]), &[]));
    assert!(!is_open(Vec::new(), &[]), "no source lists it");
}

/// A VM of a user who is not trusted, with this process as its hypervisor.
fn vm_of_test(nics: Vec<Nic>) -> InstanceInfo {
    InstanceInfo { hypervisor_pid: Some(std::process::id()), uid: Some(7), nics, ..InstanceInfo::default() }
}

/// Three readers ask for the namespaces in each of two ticks.
#[test]
fn readers_open_a_namespace_once() {
    let finds = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&finds);
    let find = move |(host, netns, pids): (Host, u64, Vec<u32>)| {
        count.fetch_add(1, Ordering::Relaxed);
        Namespace::find(&host, netns, &pids)
    };
    let mut namespaces = Namespaces { finder: Patient::new("find", PATIENCE, find), ..namespaces(10) };
    let own = namespaces.host.own_netns().unwrap();
    let vms = VmSet { vms: vec![vm_of_test(vec![Nic { tap: "tap0".into(), netns: Some(own) }])] };
    for _ in 0..2 {
        resolve(&mut namespaces, &vms, &[]);
        let problems = [(); 3].map(|()| namespaces.report().problems.len());
        assert!(problems.iter().all(|count| *count == problems[0]), "each reader reports the same");
        namespaces.end_tick(|_| true);
    }
    assert!(is_held(&namespaces, own));
    assert_eq!(finds.load(Ordering::Relaxed), 1);
}

#[test]
fn a_refused_socket_of_events_is_tried_again() {
    let mut namespaces = Namespaces { own: Some(Devices::unheard()), ..namespaces(10) };
    assert!(namespaces.own.as_ref().unwrap().problem().is_some());
    resolve(&mut namespaces, &VmSet::default(), &[]);
    let report = namespaces.report();
    assert!(report.problems.is_empty() && namespaces.own.unwrap().events.is_some());
}

#[test]
fn missing_events_are_a_problem() {
    let unheard = Devices::open(Scope::REFUSED).unwrap();
    let mut namespaces = Namespaces { own: Some(unheard), ..namespaces(10) };
    resolve(&mut namespaces, &VmSet::default(), &[]);
    let report = namespaces.report();
    assert!(report.problems[0].to_string().contains("cannot listen for changes"));
}

#[test]
fn a_tick_that_panicked_leaves_no_old_state() {
    let mut namespaces = namespaces(10);
    resolve(&mut namespaces, &vms(&[(7, 3)]), &[]);
    assert_eq!(namespaces.order.len(), 3);
    // No end of the tick.
    resolve(&mut namespaces, &vms(&[(7, 1)]), &[]);
    assert_eq!(namespaces.order.len(), 1);
}

#[test]
fn namespaces_beyond_the_time_are_deferred() {
    let (mut namespaces, none) = (namespaces(10), HashSet::new());
    let vms = vms(&[(7, 2)]);
    let wanted = wanted(&vms, &none, &namespaces.trust);
    (namespaces.order, namespaces.overuse) = namespaces.within_shares(&wanted);
    let [first, second] = namespaces.order[..] else { panic!("two") };
    let known = ForeignNamespace::new(&wanted[&first].pids, wanted[&first].tenant, FIRST_NUMBER);
    namespaces.foreign.insert(first, known);
    assert!(namespaces.is_deferred(second) && !namespaces.is_deferred(first));
    assert!(!namespaces.is_deferred(1), "nobody has asked for it");
}
