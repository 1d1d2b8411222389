//! What several sources know, as one set of VMs. Pure.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

use super::{Tier, is_device_name};
use crate::model::{Hypervisor, InstanceInfo, Nic};

/// One set of what each source lists, the most trusted source first, and what is wrong with each source's
/// list.
///
/// VMs of two sources are the same if they have the same process; or the same id and not two different
/// processes; or a NIC in common, and one of them no process that is known. The first source's word counts; what it does
/// not know is taken from the next. NICs have an order of their own: see [`Tier`]. In the result, no
/// id is there twice: the VM that comes first keeps it, others have their pid added. Nor is a NIC, so that no byte is
/// counted for two VMs: the one that comes first keeps it.
pub fn merge_listings(listings: Vec<(Tier, Vec<InstanceInfo>)>) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    merge_again(listings, &mut GivenIds::default())
}

/// The ids that were given at the last merge, by the id that the sources know and the process.
#[derive(Debug, Default)]
pub(super) struct GivenIds(HashMap<(String, u32), String>);

/// The same, but a process keeps the id it was given before, whoever else with its id comes or goes: what it uses must not
/// seem to be another VM's.
pub(super) fn merge_again(
    listings: Vec<(Tier, Vec<InstanceInfo>)>,
    given: &mut GivenIds,
) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
    let mut merged = Merged::default();
    let mut problems = Vec::new();
    for (tier, listing) in listings {
        problems.push(merged.add_listing(tier, listing));
    }
    merged.name_the_nameless();
    let of_ids = make_ids_unique(&mut merged, given);
    let of_nics = check_nics(&mut merged);
    for (source, problem) in of_ids.into_iter().chain(of_nics) {
        problems[source].push(problem);
    }
    (merged.vms, problems)
}

#[derive(Debug, Default)]
struct Merged {
    vms: Vec<InstanceInfo>,
    /// The source that listed each of `vms` first.
    sources: Vec<usize>,
    /// How far the NICs of each of `vms` are to be believed.
    nic_ranks: Vec<usize>,
    by_pid: HashMap<u32, usize>,
    by_id: HashMap<String, usize>,
    by_nic: HashMap<Nic, usize>,
    listings: usize,
}

impl Merged {
    fn add_listing(&mut self, tier: Tier, listing: Vec<InstanceInfo>) -> Vec<String> {
        let source = self.listings;
        self.listings += 1;
        let earlier = self.vms.len();
        let mut problems = Vec::new();
        for vm in listing {
            match self.same(&vm, earlier) {
                Some(at) if at < earlier => self.fill(at, tier, vm),
                Some(at) => {
                    let pid = vm.hypervisor_pid.unwrap_or_default();
                    problems.push(format!(
                        "{:?} left out: process {pid} is {:?} already",
                        vm.id, self.vms[at].id
                    ));
                }
                None => self.add(source, tier, vm),
            }
        }
        problems
    }

    /// A source's own VMs are the same only by their process: it may well list an id twice.
    fn same(&self, vm: &InstanceInfo, earlier: usize) -> Option<usize> {
        let process_of = |at: usize| self.vms[at].hypervisor_pid;
        let by_pid = vm.hypervisor_pid.and_then(|pid| self.by_pid.get(&pid).copied());
        let by_id = || {
            let at = self.by_id.get(&vm.id).copied().filter(|at| *at < earlier)?;
            let two_processes = vm.hypervisor_pid.is_some() && process_of(at).is_some();
            (!two_processes).then_some(at)
        };
        let by_nic = || {
            let mut at = vm.nics.iter().filter_map(|nic| self.by_nic.get(nic).copied());
            at.find(|at| *at < earlier && process_of(*at).is_some() != vm.hypervisor_pid.is_some())
        };
        by_pid.or_else(by_id).or_else(by_nic)
    }

    fn add(&mut self, source: usize, tier: Tier, vm: InstanceInfo) {
        let at = self.vms.len();
        self.vms.push(InstanceInfo { nics: Vec::new(), ..vm.clone() });
        self.sources.push(source);
        self.nic_ranks.push(usize::MAX);
        self.index(at);
        self.set_nics(at, tier, vm.nics);
    }

    fn fill(&mut self, at: usize, tier: Tier, other: InstanceInfo) {
        let vm = &mut self.vms[at];
        if vm.id.is_empty() {
            vm.id = other.id;
        }
        if vm.name.is_empty() {
            vm.name = other.name;
        }
        if vm.hypervisor == Hypervisor::Other {
            vm.hypervisor = other.hypervisor;
        }
        vm.hypervisor_pid = vm.hypervisor_pid.or(other.hypervisor_pid);
        if vm.uncounted.is_empty() {
            vm.uncounted = other.uncounted;
        }
        vm.allocated_vcpus = vm.allocated_vcpus.or(other.allocated_vcpus);
        vm.allocated_memory_bytes = vm.allocated_memory_bytes.or(other.allocated_memory_bytes);
        vm.actual_memory_bytes = vm.actual_memory_bytes.or(other.actual_memory_bytes);
        vm.state = vm.state.or(other.state);
        vm.project = vm.project.take().or(other.project);
        self.index(at);
        self.set_nics(at, tier, other.nics);
    }

    fn index(&mut self, at: usize) {
        let vm = &self.vms[at];
        if let Some(pid) = vm.hypervisor_pid {
            self.by_pid.insert(pid, at);
        }
        if !vm.id.is_empty() {
            self.by_id.entry(vm.id.clone()).or_insert(at);
        }
    }

    /// No NICs at all means that the source knows of none.
    fn set_nics(&mut self, at: usize, tier: Tier, nics: Vec<Nic>) {
        if nics.is_empty() || self.nic_ranks[at] <= tier.nic_rank() {
            return self.locate_nics(at, &nics);
        }
        for nic in &nics {
            self.by_nic.entry(nic.clone()).or_insert(at);
        }
        self.nic_ranks[at] = tier.nic_rank();
        self.vms[at].nics = nics;
    }

    /// Who is believed may have said a name only: that is the device of this name that the process has, wherever it is.
    fn locate_nics(&mut self, at: usize, held: &[Nic]) {
        for nic in &mut self.vms[at].nics {
            let elsewhere = |other: &&Nic| other.tap == nic.tap && other.netns.is_some();
            if nic.netns.is_some() || held.contains(nic) {
                continue;
            }
            if let [found] = held.iter().filter(elsewhere).collect::<Vec<_>>()[..] {
                self.by_nic.entry(found.clone()).or_insert(at);
                *nic = found.clone();
            }
        }
    }

    fn name_the_nameless(&mut self) {
        for vm in &mut self.vms {
            if vm.id.is_empty() {
                let pid = vm.hypervisor_pid.unwrap_or_default();
                vm.id = format!("{}-{pid}", vm.hypervisor);
            }
            if vm.name.is_empty() {
                vm.name.clone_from(&vm.id);
            }
        }
    }
}

/// The source and the text of each problem. Ids that nobody shares stay as they are.
fn make_ids_unique(merged: &mut Merged, given: &mut GivenIds) -> Vec<(usize, String)> {
    let before = mem::take(&mut given.0);
    let key = |vm: &InstanceInfo| Some((vm.id.clone(), vm.hypervisor_pid?));
    let kept: Vec<Option<&String>> =
        merged.vms.iter().map(|vm| key(vm).and_then(|key| before.get(&key))).collect();
    let mut taken: HashSet<String> = kept.iter().copied().flatten().cloned().collect();
    let wanted: HashSet<String> = merged.vms.iter().map(|vm| vm.id.clone()).collect();
    let mut problems = Vec::new();
    for (at, (vm, kept)) in merged.vms.iter_mut().zip(kept).enumerate() {
        let id = match kept {
            Some(kept) => kept.clone(),
            None if taken.insert(vm.id.clone()) => vm.id.clone(),
            None => {
                // Without a process, its place must tell it apart.
                let suffix = vm.hypervisor_pid.map_or_else(|| format!("-#{at}"), |pid| format!("-{pid}"));
                let mut id = format!("{}{suffix}", vm.id);
                while wanted.contains(&id) || !taken.insert(id.clone()) {
                    id.push_str(&suffix);
                }
                id
            }
        };
        given.0.extend(key(vm).map(|key| (key, id.clone())));
        if id != vm.id {
            problems
                .push((merged.sources[at], format!("two VMs with the id {:?}: one is {id:?} here", vm.id)));
            vm.id = id;
        }
    }
    problems
}

/// The source and the text of each problem.
fn check_nics(merged: &mut Merged) -> Vec<(usize, String)> {
    let mut holders: HashMap<Nic, String> = HashMap::new();
    let mut problems = Vec::new();
    for (vm, source) in merged.vms.iter_mut().zip(&merged.sources) {
        for Nic { tap, .. } in vm.nics.iter().filter(|nic| !is_device_name(&nic.tap)) {
            problems
                .push((*source, format!("{tap:?} of {:?} cannot be the name of a network device", vm.id)));
        }
        vm.nics.retain(|nic| match holders.entry(nic.clone()) {
            Entry::Vacant(free) => {
                free.insert(vm.id.clone());
                true
            }
            Entry::Occupied(taken) => {
                let (tap, holder) = (&nic.tap, taken.get());
                problems
                    .push((*source, format!("{tap:?} of {:?} left out: it is of {holder:?} already", vm.id)));
                false
            }
        });
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::super::precedence::FACTS;
    use super::*;
    use crate::model::VmState;

    /// The listings of tiers that follow each other in trust.
    fn merge_listings(listings: Vec<Vec<InstanceInfo>>) -> (Vec<InstanceInfo>, Vec<Vec<String>>) {
        super::merge_listings(FACTS.into_iter().zip(listings).collect())
    }

    fn vm(id: &str, pid: Option<u32>) -> InstanceInfo {
        InstanceInfo { id: id.into(), name: id.into(), hypervisor_pid: pid, ..InstanceInfo::default() }
    }

    fn found(pid: u32) -> InstanceInfo {
        InstanceInfo {
            id: "uuid".into(),
            name: "guest".into(),
            hypervisor: Hypervisor::Qemu,
            hypervisor_pid: Some(pid),
            nics: vec![Nic::local(format!("tap{pid}"))],
            allocated_vcpus: Some(2),
            allocated_memory_bytes: Some(1 << 30),
            actual_memory_bytes: Some(1 << 29),
            state: Some(VmState::Paused),
            project: Some("p".into()),
            ..InstanceInfo::default()
        }
    }

    fn ids(listings: Vec<Vec<InstanceInfo>>) -> (Vec<String>, Vec<Vec<String>>) {
        let (vms, problems) = merge_listings(listings);
        (vms.into_iter().map(|vm| vm.id).collect(), problems)
    }

    #[test]
    fn the_same_process_is_one_vm_and_gaps_are_filled() {
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
        assert_eq!(
            vms,
            [InstanceInfo {
                allocated_memory_bytes: Some(1 << 30),
                actual_memory_bytes: Some(1 << 29),
                project: Some("p".into()),
                ..first
            }]
        );
    }

    #[test]
    fn the_same_id_is_one_vm_unless_the_processes_differ() {
        let (vms, problems) = merge_listings(vec![vec![vm("uuid", None)], vec![found(7)]]);
        assert_eq!((vms.len(), vms[0].hypervisor_pid), (1, Some(7)));
        assert!(problems.concat().is_empty());
        let (ids, problems) = ids(vec![vec![vm("uuid", Some(6))], vec![found(7)]]);
        assert_eq!(ids, ["uuid", "uuid-7"]);
        assert_eq!(
            problems,
            [vec![], vec!["two VMs with the id \"uuid\": one is \"uuid-7\" here".to_owned()]]
        );
    }

    #[test]
    fn a_process_keeps_the_id_it_was_given() {
        let mut given = GivenIds::default();
        let mut ids = |vms: Vec<InstanceInfo>| {
            let (vms, _) = merge_again(vec![(FACTS[0], vms)], &mut given);
            vms.into_iter().map(|vm| vm.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(vec![vm("a", Some(1)), vm("a", Some(2))]), ["a", "a-2"]);
        assert_eq!(ids(vec![vm("a", Some(2))]), ["a-2"], "the first has ended");
        assert_eq!(ids(vec![vm("a", Some(3)), vm("a", Some(2))]), ["a", "a-2"], "and was started again");
        assert_eq!(ids(vec![vm("a-2", Some(4)), vm("a", Some(2))]), ["a-2-4", "a-2"]);
        assert_eq!(ids(vec![]), [""; 0]);
        assert_eq!(ids(vec![vm("a", Some(2))]), ["a"], "it was gone meanwhile");
    }

    #[test]
    fn within_one_source_the_same_id_is_two_vms_and_the_same_process_is_one() {
        let (got, problems) =
            ids(vec![vec![vm("a", Some(1)), vm("a", Some(2)), vm("a-2", Some(3)), vm("b", Some(1))]]);
        assert_eq!(got, ["a", "a-2-2", "a-2"]);
        assert_eq!(problems[0].len(), 2);
        assert_eq!(problems[0][0], "\"b\" left out: process 1 is \"a\" already");
        let (got, _) = ids(vec![vec![vm("a", None), vm("a", None)]]);
        assert_eq!(got, ["a", "a-#1"]);
    }

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
        assert_eq!(nics, [vec![tap0], vec![tap1, elsewhere], vec![]]);
        assert!(problems[0].is_empty());
        assert_eq!(
            problems[1][1..],
            [
                "\"tap0\" of \"a-2\" left out: it is of \"a\" already",
                "\"tap0\" of \"c\" left out: it is of \"a-2\" already",
            ]
        );
    }

    #[test]
    fn a_name_that_no_device_can_have_is_a_problem() {
        let nics = vec![Nic::local("tap0"), Nic::local("x/y")];
        let (vms, problems) =
            merge_listings(vec![vec![InstanceInfo { nics: nics.clone(), ..vm("a", None) }]]);
        assert_eq!(vms[0].nics, nics, "a sum without it would be wrong");
        assert_eq!(problems[0], ["\"x/y\" of \"a\" cannot be the name of a network device"]);
    }

    #[test]
    fn a_vm_without_a_process_is_the_one_whose_process_has_its_tap() {
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

    #[test]
    fn the_process_says_which_taps_it_has_and_the_orchestrator_the_rest() {
        let elsewhere = Nic { netns: Some(7), ..Nic::local("tap0") };
        let by = |tier, nic: &Nic, vcpus| {
            let nics = vec![nic.clone()];
            (tier, vec![InstanceInfo { nics, allocated_vcpus: Some(vcpus), ..vm("a", Some(1)) }])
        };
        let orchestrator = by(Tier::Orchestrator, &Nic::local("tap0"), 4);
        let vmm = by(Tier::Vmm, &Nic::local("tap1"), 2);
        let process = by(Tier::Process, &elsewhere, 1);
        let merged = |listings: &[&(Tier, Vec<InstanceInfo>)]| {
            let (mut vms, problems) = super::merge_listings(listings.iter().copied().cloned().collect());
            assert!(problems.concat().is_empty());
            let vm = vms.remove(0);
            (vm.nics, vm.allocated_vcpus)
        };
        assert_eq!(merged(&[&orchestrator, &vmm, &process]), (vec![elsewhere.clone()], Some(4)));
        assert_eq!(merged(&[&vmm, &process]), (vec![elsewhere], Some(2)));
        assert_eq!(merged(&[&orchestrator, &vmm]), (vec![Nic::local("tap0")], Some(4)));
        let written = by(Tier::Written, &Nic::local("mine"), 8);
        assert_eq!(merged(&[&written, &orchestrator, &process]), (vec![Nic::local("mine")], Some(8)));
        let written = by(Tier::Written, &Nic::local("tap0"), 8);
        let located = merged(&[&written, &orchestrator, &process]);
        assert_eq!(located, (vec![Nic { netns: Some(7), ..Nic::local("tap0") }], Some(8)), "by name only");
        let here = by(Tier::Process, &Nic::local("tap0"), 1);
        assert_eq!(merged(&[&written, &here]), (vec![Nic::local("tap0")], Some(8)));
    }

    #[test]
    fn who_does_not_know_the_id_leaves_it_to_others() {
        let vmm = InstanceInfo { allocated_vcpus: Some(4), ..vm("", Some(7)) };
        let other = InstanceInfo { hypervisor: Hypervisor::Qemu, ..vm("", Some(9)) };
        let (vms, problems) = merge_listings(vec![vec![vmm, other], vec![found(7)]]);
        assert_eq!(vms[0], InstanceInfo { allocated_vcpus: Some(4), ..found(7) });
        assert_eq!((vms[1].id.as_str(), vms[1].name.as_str()), ("qemu-9", "qemu-9"));
        assert!(problems.concat().is_empty());
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
}
