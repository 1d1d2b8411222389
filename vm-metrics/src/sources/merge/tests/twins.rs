//! Tests of VMs of one user that claim one id.

use std::collections::HashMap;

use super::*;
use crate::sources::merge::fingerprints::Fingerprints;

/// What tells a VM from others: at any time, beside others, and until it starts again.
type Traits = [&'static str; 3];

const WEB: Traits = ["", "", ""];

impl World {
    /// A process of root that claims the id `x`.
    fn start(&mut self, pid: u32, traits: Traits) {
        self.holds(pid, 0, &[Nic::local(format!("tap{pid}"))]);
        let [always, beside, changing] = traits;
        let process = self.processes.get_mut(&pid).unwrap();
        process.fingerprints = Fingerprints::new([&[always], &[beside], &[changing]]);
    }

    fn stop(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// The ids by process.
    fn look(&mut self) -> HashMap<u32, String> {
        let mut pids: Vec<_> = self.processes.keys().copied().collect();
        pids.sort_unstable();
        let vm = |pid: &u32| InstanceInfo { nics: self.processes[pid].nics.clone(), ..vm("x", Some(*pid)) };
        let told = listing_of(Precedence::Process, pids.iter().map(vm).collect());
        let vms = self.merge(vec![told]).0;
        let ids: HashMap<_, _> = vms.into_iter().map(|vm| (vm.hypervisor_pid.unwrap(), vm.id)).collect();
        let unique: HashSet<_> = ids.values().collect();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        ids
    }
}

#[test]
fn twins_that_come_together_both_get_a_suffix() {
    for start_order in [[1, 2], [2, 1]] {
        let mut world = World::new();
        world.start(start_order[0], ["a", "", ""]);
        world.start(start_order[1], ["b", "", ""]);
        let ids = world.look();
        let shapes: Vec<_> = ids.values().map(|id| shape(id)).collect();
        assert_eq!(shapes, ["x-*", "x-*"]);
        let mut alone = World::new();
        alone.start(1, ["a", "", ""]);
        alone.start(2, ["b", "", ""]);
        let (first, second) = (start_order[0], start_order[1]);
        assert_eq!(
            (&alone.look()[&1], &alone.look()[&2]),
            (&ids[&first], &ids[&second]),
            "by the traits alone"
        );
    }
}

#[test]
fn who_was_alone_keeps_the_id_from_newcomers() {
    for newcomer in [["b", "", ""], ["", "b", ""], ["", "", "b"], WEB] {
        let mut world = World::new();
        world.start(5, WEB);
        assert_eq!(world.look()[&5], "x");
        world.start(3, newcomer);
        let both = world.look();
        assert_eq!((both[&5].as_str(), shape(&both[&3])), ("x", "x-*".to_owned()));
        world.stop(5);
        assert_eq!(world.look()[&3], both[&3]);
        world.restart();
        assert_eq!(world.look()[&3], both[&3]);
        world.stop(3);
        world.look();
        world.start(7, newcomer);
        assert_ne!(world.look()[&7], "x", "{newcomer:?}");
    }
}

#[test]
fn a_lone_restarted_vm_keeps_its_id() {
    for changed in [WEB, ["", "b", ""], ["", "", "b"]] {
        let mut world = World::new();
        world.start(5, WEB);
        world.look();
        world.stop(5);
        world.look();
        world.restart();
        world.start(6, changed);
        assert_eq!(world.look()[&6], "x", "{changed:?}");
    }
}

#[test]
fn another_name_never_gets_the_id() {
    let mut world = World::new();
    world.start(5, ["t1", "", ""]);
    world.look();
    world.stop(5);
    world.look();
    world.start(6, ["t2", "", ""]);
    assert_eq!(shape(&world.look()[&6]), "x-*");
    world.start(7, ["t1", "", ""]);
    assert_eq!(world.look()[&7], "x");
}

/// It holds the TAP, and is told apart by nothing else.
#[test]
fn a_child_inherits_the_id_of_its_twin() {
    let mut world = World::new();
    world.start(5, WEB);
    world.start(6, WEB);
    let before = world.look();
    world.stop(5);
    world.start(8, WEB);
    world.processes.get_mut(&8).unwrap().came_from = Some((5, 5));
    let after = world.look();
    assert_eq!((&after[&8], &after[&6]), (&before[&5], &before[&6]));
}

#[test]
fn a_held_tap_keeps_its_twins_id() {
    let mut world = World::new();
    world.start(5, WEB);
    world.start(6, WEB);
    let before = world.look();
    world.stop(5);
    let orphan = InstanceInfo { nics: vec![Nic::local("tap5")], uid: Some(0), ..vm("x", None) };
    let other = InstanceInfo { nics: vec![Nic::local("tap6")], ..vm("x", Some(6)) };
    let (vms, _) = world.merge(vec![listing_of(Precedence::Process, vec![orphan, other])]);
    let ids: Vec<_> = vms.iter().map(|vm| vm.id.as_str()).collect();
    assert_eq!(ids, [&before[&5], &before[&6]]);
}

#[test]
fn no_other_vm_gets_a_suffixed_id() {
    let mut world = World::new();
    world.start(5, ["a", "", ""]);
    world.start(6, ["b", "", ""]);
    let suffixed = world.look()[&5].clone();
    world.processes.clear();
    world.look();
    let literal = vm(&suffixed, Some(9));
    let (vms, _) = world.merge(vec![listing_of(Precedence::Process, vec![literal])]);
    assert_eq!(vms[0].id.len(), suffixed.len() + 7, "{}", vms[0].id);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start(usize),
    Stop(usize),
    Restart,
    Look,
}

fn steps(vms: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..vms).prop_map(Step::Start),
        3 => (0..vms).prop_map(Step::Stop),
        1 => Just(Step::Restart),
        3 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..40)
}

/// Runs the steps. Returns which VM had which id, in each look: the VM, its process and the id.
fn play(vms: &[Traits], begin_together: bool, steps: &[Step]) -> Vec<(usize, u32, String)> {
    let mut world = World::new();
    let (mut running, mut next_pid) = (HashMap::new(), 100);
    let mut start = |world: &mut World, running: &mut HashMap<usize, u32>, at: usize| {
        running.entry(at).or_insert_with(|| {
            next_pid += 1;
            world.start(next_pid, vms[at]);
            next_pid
        });
    };
    let mut seen = Vec::new();
    if begin_together {
        (0..vms.len()).for_each(|at| start(&mut world, &mut running, at));
    }
    for step in [Step::Look].iter().chain(steps) {
        match *step {
            Step::Start(at) => start(&mut world, &mut running, at),
            Step::Stop(at) => running.remove(&at).into_iter().for_each(|pid| world.stop(pid)),
            Step::Restart => world.restart(),
            Step::Look => {
                let ids = world.look();
                seen.extend(running.iter().map(|(at, pid)| (*at, *pid, ids[pid].clone())));
            }
        }
    }
    seen
}

proptest! {
    /// Whatever comes and goes, each VM has one id, and none has another's.
    #[test]
    fn vms_of_other_names_never_swap_ids(together: bool, steps in steps(3)) {
        let vms = [["a", "", ""], ["b", "", ""], ["c", "", ""]];
        let (mut of_vm, mut of_id) = (HashMap::new(), HashMap::new());
        for (vm, _, id) in play(&vms, together, &steps) {
            prop_assert_eq!(of_vm.entry(vm).or_insert_with(|| id.clone()), &id);
            prop_assert_eq!(*of_id.entry(id).or_insert(vm), vm);
        }
    }

    #[test]
    fn vms_that_were_told_apart_never_swap_ids(steps in steps(4)) {
        let vms = [WEB, ["", "b", ""], ["", "c", "1"], ["", "c", "2"]];
        let (mut of_vm, mut of_id) = (HashMap::new(), HashMap::new());
        for (vm, _, id) in play(&vms, true, &steps) {
            prop_assert_eq!(of_vm.entry(vm).or_insert_with(|| id.clone()), &id);
            prop_assert_eq!(*of_id.entry(id).or_insert(vm), vm);
        }
    }

    /// Nothing tells them apart, so no process has the id of another one.
    #[test]
    fn identical_vms_never_share_an_id(steps in steps(3)) {
        let (mut of_process, mut of_id) = (HashMap::new(), HashMap::new());
        for (_, pid, id) in play(&[WEB; 3], true, &steps) {
            prop_assert_ne!(&id, "x");
            prop_assert_eq!(of_process.entry(pid).or_insert_with(|| id.clone()), &id);
            prop_assert_eq!(*of_id.entry(id).or_insert(pid), pid);
        }
    }
}
