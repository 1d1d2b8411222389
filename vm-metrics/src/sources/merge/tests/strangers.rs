//! Tests of claims of untrusted users against operators and the kernel.

use super::*;

const STRANGER: u32 = 65534;
const OTHER: u32 = 1000;

fn of(uid: u32, id: &str, pid: u32) -> InstanceInfo {
    InstanceInfo { uid: Some(uid), ..vm(id, Some(pid)) }
}

fn ids(vms: &[InstanceInfo]) -> Vec<(String, Option<u32>)> {
    vms.iter().map(|vm| (shape(&vm.id), vm.hypervisor_pid)).collect()
}

fn shown(ids: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
    ids.iter().map(|(id, pid)| ((*id).to_owned(), *pid)).collect()
}

impl World {
    /// The processes describe themselves, and the kernel says who runs them.
    fn scan(&mut self, vms: &[InstanceInfo]) -> SourceListing {
        for vm in vms {
            self.holds(vm.hypervisor_pid.unwrap(), vm.uid.unwrap(), &vm.nics);
        }
        listing_of(Precedence::Process, vms.to_vec())
    }

    fn ids(&mut self, vms: &[InstanceInfo]) -> Vec<(String, u32)> {
        let scan = self.scan(vms);
        let (vms, _) = self.merge(vec![scan]);
        vms.into_iter().map(|vm| (shape(&vm.id), vm.hypervisor_pid.unwrap())).collect()
    }
}

fn given(ids: &[(&str, u32)]) -> Vec<(String, u32)> {
    ids.iter().map(|(id, pid)| ((*id).to_owned(), *pid)).collect()
}

#[test]
fn a_stranger_takes_no_id_from_root() {
    let mut world = World::new();
    let fake = of(STRANGER, "uuid", 5);
    assert_eq!(world.ids(from_ref(&fake)), given(&[("uuid", 5)]));
    let both = [fake, of(0, "uuid", 9)];
    assert_eq!(world.ids(&both), given(&[("uuid-*", 5), ("uuid", 9)]));
    assert_eq!(world.ids(&both[1..]), given(&[("uuid", 9)]), "the fake has ended");
    assert_eq!(world.ids(&both), given(&[("uuid-*", 5), ("uuid", 9)]));
}

#[test]
fn other_users_cannot_take_an_older_processs_id() {
    let mut world = World::new();
    let vms = [of(OTHER, "uuid", 5), of(STRANGER, "uuid", 9)];
    assert_eq!(world.ids(&vms), given(&[("uuid", 5), ("uuid-*", 9)]));
    assert_eq!(world.ids(&vms[1..]), given(&[("uuid-*", 9)]), "it goes on under the id that it was given");
    let late = of(STRANGER, "uuid", 10);
    assert_eq!(world.ids(from_ref(&late)), given(&[("uuid-*", 10)]), "still the other user's");
    assert_eq!(world.ids(&[of(OTHER, "uuid", 11)]), given(&[("uuid", 11)]), "who may start it again");
    world.ids(&[]);
    world.now += RETENTION;
    world.ids(&[]);
    assert_eq!(world.ids(&[late]), given(&[("uuid-*", 10)]), "an id stays its VM's");
    assert_eq!(world.ids(&[of(1001, "uuid", 12)]), given(&[("uuid", 12)]), "nothing is shown of it any more");
}

#[test]
fn a_named_vm_is_no_stranger() {
    let named = InstanceInfo { name: "shop".into(), project: Some("acme".into()), ..vm("uuid", None) };
    let mut world = World::new();
    let scan = world.scan(&[of(STRANGER, "uuid", 5)]);
    let (vms, problems) = world.merge(vec![listing_of(Precedence::Declared, vec![named.clone()]), scan]);
    assert_eq!(ids(&vms), shown(&[("uuid", None), ("uuid-*", Some(5))]));
    assert_eq!((&vms[0].name, vms[1].project.as_deref()), (&named.name, None));
    assert!(problems[1][0].contains("not in [trust]"), "{problems:?}");
    // Nor where its process has ended.
    let ended = SourceListing { ended: vec![named], ..SourceListing::nothing(Precedence::Pushed) };
    let scan = world.scan(&[of(STRANGER, "uuid", 5)]);
    let (vms, _) = world.merge(vec![ended, scan]);
    assert_eq!((vms.len(), vms[0].project.as_deref()), (1, None));
}

/// A pid that an orchestrator writes down a moment late.
#[test]
fn a_users_restarted_vm_keeps_its_name() {
    let pushed = |pid| InstanceInfo { name: "shop".into(), ..vm("uuid", pid) };
    let mut world = World::new();
    let scan = world.scan(&[of(OTHER, "uuid", 5)]);
    world.merge(vec![listing_of(Precedence::Pushed, vec![pushed(Some(5))]), scan]);
    let scan = world.scan(&[of(OTHER, "uuid", 6), of(STRANGER, "uuid", 7)]);
    let ended = SourceListing { ended: vec![pushed(None)], ..SourceListing::nothing(Precedence::Pushed) };
    let (vms, _) = world.merge(vec![ended, scan]);
    let names: Vec<_> = vms.iter().map(|vm| (vm.hypervisor_pid, vm.name.as_str())).collect();
    assert_eq!(names, [(Some(6), "shop"), (Some(7), "uuid")]);
}

#[test]
fn an_api_takes_no_device_of_another() {
    let taps = |names: &[&str]| names.iter().map(|name| Nic::local(*name)).collect::<Vec<_>>();
    let mut world = World::new();
    world.devices =
        vec![("tap0", LocalDevice::Tap), ("free", LocalDevice::Tap), ("eth0", LocalDevice::Other)];
    let victim = InstanceInfo { nics: taps(&["tap0"]), ..of(0, "victim", 3) };
    let scan = world.scan(&[of(STRANGER, "thief", 2), victim.clone()]);
    let answer = InstanceInfo { nics: taps(&["tap0", "free", "eth0", "lo"]), ..of(STRANGER, "", 2) };
    let (vms, _) = world.merge(vec![scan, listing_of(Precedence::Vmm, vec![answer])]);
    let nics: Vec<_> = vms.iter().map(|vm| (vm.id.as_str(), vm.nics.as_slice())).collect();
    assert_eq!(nics, [("thief", &[][..]), ("victim", &victim.nics)]);
}

#[test]
fn operators_cannot_name_uplinks_or_held_taps() {
    let mut world = World::new();
    world.devices =
        vec![("tap0", LocalDevice::Tap), ("mine", LocalDevice::Tap), ("eth0", LocalDevice::Other)];
    let holder = InstanceInfo { nics: vec![Nic::local("tap0")], ..of(STRANGER, "a", 3) };
    let names = ["mine", "eth0", "tap0"].map(Nic::local).to_vec();
    let scan = world.scan(&[of(0, "b", 4), holder]);
    let named = InstanceInfo { nics: names, ..vm("web", Some(4)) };
    let (vms, problems) = world.merge(vec![listing_of(Precedence::Declared, vec![named]), scan]);
    assert_eq!(vms[0].nics, [Nic::local("mine")]);
    let expected = [
        "\"web\": \"eth0\" left out: it is no TAP",
        "\"web\": \"tap0\" left out: a process of another VM holds it",
    ];
    assert_eq!(problems[0], expected);
}

#[test]
fn a_declared_vm_keeps_its_tap_from_namesakes() {
    let mut world = World::new();
    world.devices = vec![("tap0", LocalDevice::Tap)];
    let elsewhere = Nic { netns: Some(7), ..Nic::local("tap0") };
    let fake = InstanceInfo { nics: vec![elsewhere.clone()], ..of(STRANGER, "web", 5) };
    let named = InstanceInfo { nics: vec![Nic::local("tap0")], ..vm("web", None) };
    let scan = world.scan(&[fake]);
    let (vms, _) = world.merge(vec![listing_of(Precedence::Declared, vec![named]), scan]);
    let nics: Vec<_> = vms.iter().map(|vm| (vm.hypervisor_pid, vm.nics.as_slice())).collect();
    assert_eq!(nics, [(None, &[Nic::local("tap0")][..]), (Some(5), &[elsewhere])]);
}

#[test]
fn a_shared_tap_stays_with_who_had_it() {
    let tap = |id, uid, pid| InstanceInfo { nics: vec![Nic::local("tap0")], ..of(uid, id, pid) };
    let mut world = World::new();
    let holder = |vms: &[InstanceInfo]| vms.iter().find(|vm| !vm.nics.is_empty()).unwrap().id.clone();
    let (first, second) = (tap("a", OTHER, 5), tap("b", STRANGER, 4));
    let scan = world.scan(from_ref(&first));
    assert_eq!(holder(&world.merge(vec![scan]).0), "a");
    let scan = world.scan(&[first, second.clone()]);
    assert_eq!(holder(&world.merge(vec![scan]).0), "a", "the other is older, and comes later");
    world.processes.clear();
    let scan = world.scan(&[second]);
    assert_eq!(holder(&world.merge(vec![scan]).0), "b");
}

#[test]
fn a_command_line_counts_only_for_trusted_users() {
    let mut world = World::new();
    world.devices = vec![("tap0", LocalDevice::Tap)];
    for (uid, expected) in [(0, 1), (STRANGER, 0)] {
        let named = InstanceInfo { nics: vec![Nic::local("tap0")], ..of(uid, "a", 5) };
        let scan = world.scan(&[named]);
        let process = world.processes.get_mut(&5).unwrap();
        process.is_looked_at = false;
        process.nics.clear();
        assert_eq!(world.merge(vec![scan]).0[0].nics.len(), expected, "user {uid}");
    }
}

#[test]
fn an_answer_of_nobody_is_left_out() {
    let answer = |uid| InstanceInfo { uid: Some(uid), ..vm("uuid", None) };
    let mut world = World::new();
    let scan = world.scan(&[of(0, "uuid", 5)]);
    let (vms, _) = world.merge(vec![scan, listing_of(Precedence::Vmm, vec![answer(STRANGER)])]);
    assert_eq!(ids(&vms), shown(&[("uuid", Some(5))]));
    let (vms, _) = world.merge(vec![listing_of(Precedence::Vmm, vec![answer(0)])]);
    assert_eq!(ids(&vms), shown(&[("uuid", None)]), "root may say what it likes");
}

/// Neither the daemon's restart nor an older fake takes a user's id.
#[test]
fn a_user_keeps_its_id_over_a_restart() {
    let mut world = World::new();
    let (fake, victim) = (of(STRANGER, "uuid", 5), of(OTHER, "uuid", 9));
    assert_eq!(world.ids(from_ref(&victim)), given(&[("uuid", 9)]));
    world.restart();
    assert_eq!(world.ids(&[fake.clone(), victim]), given(&[("uuid-*", 5), ("uuid", 9)]));
    world.ids(&[]);
    world.restart();
    assert_eq!(world.ids(from_ref(&fake)), given(&[("uuid-*", 5)]), "the victim starts again");
    assert_eq!(world.ids(&[fake, of(OTHER, "uuid", 12)]), given(&[("uuid-*", 5), ("uuid", 12)]));
}

#[test]
fn a_restart_keeps_ids_of_ended_vms() {
    let pushed = listing_of(Precedence::Pushed, vec![vm("uuid", Some(9))]);
    for (told, uid) in [(None, 0), (Some(pushed), OTHER)] {
        let mut world = World::new();
        let scan = world.scan(&[of(uid, "uuid", 9)]);
        world.merge(told.into_iter().chain([scan]).collect());
        world.ids(&[]);
        world.restart();
        assert_eq!(world.ids(&[of(STRANGER, "uuid", 11)]), given(&[("uuid-*", 11)]), "user {uid} had it");
        assert_eq!(world.ids(&[of(uid, "uuid", 12)]), given(&[("uuid", 12)]), "who may start it again");
    }
}

/// Both had it in turn: root's VM had it as long as it was there.
#[test]
fn the_better_owner_of_an_id_is_restored() {
    for _ in 0..8 {
        let mut world = World::new();
        world.ids(&[of(STRANGER, "uuid", 5)]);
        world.ids(&[]);
        world.ids(&[of(0, "uuid", 9)]);
        world.ids(&[]);
        world.restart();
        assert_eq!(world.ids(&[of(STRANGER, "uuid", 11)]), given(&[("uuid-*", 11)]));
    }
}

/// As QEMU with `-runas`, or where `[trust]` is another after a restart.
#[test]
fn a_process_keeps_its_id_whoever_runs_it() {
    for [first, second] in [[0, OTHER], [OTHER, 0], [OTHER, STRANGER]] {
        for is_restarted in [false, true] {
            let mut world = World::new();
            let twins = |uid| [of(uid, "uuid", 5), of(uid, "uuid", 6)];
            let scan = world.scan(&twins(first));
            let before = world.merge(vec![scan]).0;
            if is_restarted {
                world.restart();
            }
            let scan = world.scan(&twins(second));
            let after = world.merge(vec![scan]).0;
            let ids = |vms: &[InstanceInfo]| vms.iter().map(|vm| vm.id.clone()).collect::<Vec<_>>();
            assert_eq!(ids(&before), ids(&after), "user {first}, then {second}, restarted: {is_restarted}");
        }
    }
}

#[test]
fn a_change_of_user_keeps_the_id() {
    let mut world = World::new();
    assert_eq!(world.ids(&[of(0, "uuid", 5)]), given(&[("uuid", 5)]));
    assert_eq!(world.ids(&[of(OTHER, "uuid", 5)]), given(&[("uuid", 5)]));
    let both = [of(OTHER, "uuid", 5), of(STRANGER, "uuid", 6)];
    assert_eq!(world.ids(&both), given(&[("uuid", 5), ("uuid-*", 6)]));
    assert_eq!(world.ids(&[]), []);
    assert_eq!(world.ids(&both[1..]), given(&[("uuid-*", 6)]), "kept from others");
    assert_eq!(world.ids(&[of(0, "uuid", 7)]), given(&[("uuid", 7)]));
    assert_eq!(world.ids(&[of(OTHER, "uuid", 7)]), given(&[("uuid", 7)]), "as the time before");
}

#[test]
fn the_start_time_tells_whose_pid_it_is() {
    let mut world = World::new();
    assert_eq!(world.ids(&[of(0, "uuid", 5)]), given(&[("uuid", 5)]));
    let scan = world.scan(&[of(STRANGER, "uuid", 5)]);
    world.processes.get_mut(&5).unwrap().start_ticks = 77;
    let (vms, _) = world.merge(vec![scan]);
    assert_eq!(shape(&vms[0].id), "uuid-*", "the pid is another process's by now");
}

#[test]
fn nobody_fills_the_memory_with_ids() {
    let mut world = World::new();
    for pid in 1..3000 {
        world.ids(&[of(STRANGER, &format!("fake-{pid}"), pid)]);
        world.processes.clear();
        world.now += Duration::from_millis(1);
    }
    let kept = world.merge.ids.kept();
    assert!(kept <= 1025, "{kept} ids");
}

#[test]
fn names_of_strangers_are_short() {
    let long = "é".repeat(200);
    let mut world = World::new();
    let vms = [of(STRANGER, &long, 5), of(STRANGER, &long, 6), of(0, &format!("{long}!"), 7)];
    let ids = world.ids(&vms);
    // The shape of an id has `*` in the place of six digits.
    let lengths: Vec<_> = ids.iter().map(|(id, _)| id.replace('*', "123456").len()).collect();
    assert_eq!(lengths, [135, 135, 401]);
}
