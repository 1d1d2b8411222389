//! Tests of NICs that several sources name.

use super::*;
use crate::model::{UnmonitoredKind, UnmonitoredNic};

#[test]
fn a_nic_is_of_one_vm_once() {
    let with = |id, pid, nics: &[Nic]| InstanceInfo { nics: nics.to_vec(), ..vm(id, Some(pid)) };
    let (tap0, tap1) = (Nic::local("tap0"), Nic::local("tap1"));
    let elsewhere = Nic { netns: Some(7), ..tap0.clone() };
    let (vms, problems) = merge_listings(vec![
        vec![with("a", 1, from_ref(&tap0))],
        vec![
            with("a", 2, &[tap0.clone(), tap1.clone(), elsewhere.clone()]),
            with("c", 3, from_ref(&elsewhere)),
        ],
    ]);
    let nics: Vec<_> = vms.iter().map(|vm| vm.nics.clone()).collect();
    assert_eq!(nics, [vec![], vec![tap0, tap1, elsewhere], vec![]], "a process holds them");
    assert_eq!(problems[0], ["\"a\": \"tap0\" left out: a process of another VM holds it"]);
    assert_eq!(problems[1][1..], ["\"c\": \"tap0\" left out: another process holds it, too"]);
}

#[test]
fn an_impossible_device_name_is_a_problem() {
    let nics = vec![Nic::local("tap0"), Nic::local("x/y")];
    let (vms, problems) = merge_listings(vec![vec![InstanceInfo { nics: nics.clone(), ..vm("a", None) }]]);
    assert_eq!(vms[0].nics, nics, "a sum without it would be wrong");
    assert_eq!(problems[0], ["\"a\": \"x/y\" cannot be the name of a network device"]);
}

#[test]
fn a_held_tap_joins_vm_and_process() {
    let listed = InstanceInfo { nics: vec![Nic::local("tap7")], ..vm("web", None) };
    let (vms, problems) = merge_listings(vec![vec![listed.clone()], vec![found(7), found(8)]]);
    let web = InstanceInfo { id: "web".into(), name: "web".into(), ..found(7) };
    assert_eq!(vms, [web, found(8)]);
    assert!(problems.concat().is_empty());
    // Two that have no process are two: nothing says that they are one.
    let other = InstanceInfo { id: "other".into(), ..listed.clone() };
    let (vms, problems) = merge_listings(vec![vec![listed], vec![other]]);
    assert_eq!((vms.len(), problems[1].len()), (2, 1));
}

/// A jailed VM may call its TAP as it likes.
#[test]
fn a_namesake_in_another_namespace_joins_nothing() {
    let tap = |netns| Nic { netns, ..Nic::local("tap0") };
    let named = InstanceInfo { nics: vec![tap(None)], ..vm("web", None) };
    let jailed = InstanceInfo { nics: vec![tap(Some(1))], ..found(7) };
    let (vms, problems) = merge_listings(vec![vec![named.clone()], vec![jailed.clone()]]);
    assert_eq!(vms, [named, jailed]);
    assert!(problems.concat().is_empty());
}

#[test]
fn descriptors_decide_taps_and_orchestrators_the_rest() {
    let elsewhere = Nic { netns: Some(7), ..Nic::local("tap0") };
    let by = |precedence, nic: &Nic, vcpus| {
        let nics = vec![nic.clone()];
        (precedence, vec![InstanceInfo { nics, allocated_vcpus: Some(vcpus), ..vm("a", Some(1)) }])
    };
    let orchestrator = by(Precedence::Orchestrator, &Nic::local("tap0"), 4);
    let vmm = by(Precedence::Vmm, &Nic::local("tap1"), 2);
    let process = by(Precedence::Process, &elsewhere, 1);
    let merged = |listings: &[&(Precedence, Vec<InstanceInfo>)]| {
        let (mut vms, problems) = merge_precedences(listings.iter().copied().cloned().collect());
        assert!(problems.concat().is_empty());
        let vm = vms.remove(0);
        (vm.nics, vm.allocated_vcpus)
    };
    assert_eq!(merged(&[&orchestrator, &vmm, &process]), (vec![elsewhere.clone()], Some(4)));
    assert_eq!(merged(&[&vmm, &process]), (vec![elsewhere], Some(2)));
    assert_eq!(merged(&[&orchestrator, &vmm]), (vec![Nic::local("tap0")], Some(4)));
    let written = by(Precedence::Declared, &Nic::local("mine"), 8);
    let both = vec![Nic::local("mine"), Nic { netns: Some(7), ..Nic::local("tap0") }];
    assert_eq!(merged(&[&written, &orchestrator, &process]), (both, Some(8)));
    let written = by(Precedence::Declared, &Nic::local("tap0"), 8);
    let located = merged(&[&written, &orchestrator, &process]);
    assert_eq!(located, (vec![Nic { netns: Some(7), ..Nic::local("tap0") }], Some(8)), "by name only");
    let here = by(Precedence::Process, &Nic::local("tap0"), 1);
    assert_eq!(merged(&[&written, &here]), (vec![Nic::local("tap0")], Some(8)));
}

#[test]
fn what_joins_two_others_makes_all_one() {
    let named =
        InstanceInfo { nics: vec![Nic::local("tap7")], project: Some("acme".into()), ..vm("web", None) };
    let by_pid = InstanceInfo { allocated_vcpus: Some(8), ..vm("shop", Some(7)) };
    let expected = InstanceInfo {
        id: "web".into(),
        name: "web".into(),
        project: Some("acme".into()),
        allocated_vcpus: Some(8),
        ..found(7)
    };
    let (vms, problems) = merge_listings(vec![vec![named.clone()], vec![by_pid], vec![found(7)]]);
    assert_eq!(vms, from_ref(&expected));
    assert!(problems.concat().is_empty());
    // Two by the TAP.
    let other = InstanceInfo { id: "other".into(), ..named.clone() };
    let (vms, _) = merge_listings(vec![vec![named], vec![other], vec![found(7)]]);
    assert_eq!(vms, [InstanceInfo { allocated_vcpus: Some(2), ..expected }]);
}

#[test]
fn an_id_says_more_than_a_tap() {
    let named = InstanceInfo { nics: vec![Nic::local("tap7")], ..vm("web", None) };
    let (vms, _) = merge_listings(vec![vec![named], vec![found(7), vm("web", Some(8))]]);
    assert_eq!(
        vms.iter().map(|vm| (vm.id.as_str(), vm.hypervisor_pid)).collect::<Vec<_>>(),
        [("web", Some(8)), ("uuid", Some(7))]
    );
}

#[test]
fn strangers_share_the_room_for_held_nics() {
    let mut world = World::new();
    let mut held = |uid, pid, count| with_taps(&mut world, pid, uid, count);
    let mut vms: Vec<_> = (1..=6).map(|pid| held(1000, pid, 256)).collect();
    vms.extend([held(1001, 7, 3), held(0, 8, 256)]);
    let (vms, _) = world.merge(vec![listing_of(Precedence::Process, vms)]);
    let of = |uid| vms.iter().filter(move |vm| vm.uid == Some(uid));
    let count = |uid| of(uid).map(|vm| vm.nics.len()).sum::<usize>();
    assert_eq!((count(1000), count(1001), count(0)), (1021, 3, 256));
    assert_eq!(of(1000).filter(|vm| vm.has_more_nics).count(), 3, "their sums are unknown");
}

/// A world with a process of each of 1024 users, which holds TAPs and names an unmonitored NIC, as `qemu -netdev user` does.
fn crowd(taps: u32) -> (World, Vec<InstanceInfo>) {
    let mut world = World::new();
    let one = |pid| {
        let unmonitored = vec![UnmonitoredNic { kind: UnmonitoredKind::User, name: "n0".into() }];
        InstanceInfo { unmonitored, ..with_taps(&mut world, pid, pid, taps) }
    };
    let vms = (10_001..=11_024).map(one).collect();
    (world, vms)
}

fn with_taps(world: &mut World, pid: u32, uid: u32, count: u32) -> InstanceInfo {
    let nics: Vec<_> = (0..count).map(|at| Nic::local(format!("t{pid}-{at}"))).collect();
    world.holds(pid, uid, &nics);
    InstanceInfo { nics, uid: Some(uid), ..vm(&format!("vm{pid}"), Some(pid)) }
}

#[test]
fn strangers_take_no_nics_from_operators_vms() {
    let (mut world, fakes) = crowd(1);
    let named: Vec<_> = (1..=100).map(|pid| with_taps(&mut world, pid, 64055, 2)).collect();
    let processes = named.iter().cloned().chain(fakes).collect();
    let listings =
        vec![listing_of(Precedence::Orchestrator, named), listing_of(Precedence::Process, processes)];
    let (vms, _) = world.merge(listings);
    let named: Vec<_> = vms.iter().filter(|vm| vm.uid == Some(64055)).collect();
    assert_eq!((named.len(), named.iter().map(|vm| vm.nics.len()).sum::<usize>()), (100, 200));
    assert!(named.iter().all(|vm| !vm.has_more_nics), "their sums are known");
}

#[test]
fn unmonitored_nics_displace_no_held_taps() {
    let (mut world, mut vms) = crowd(0);
    vms.push(with_taps(&mut world, 1, 1000, 200));
    let (vms, _) = world.merge(vec![listing_of(Precedence::Process, vms)]);
    let of_taps = vms.iter().find(|vm| vm.uid == Some(1000)).unwrap();
    assert_eq!((of_taps.nics.len(), of_taps.has_more_nics), (200, false));
}
