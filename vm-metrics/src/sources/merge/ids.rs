//! Which VM has which id: no id is there twice, and no user takes another's.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Vm;
use crate::sources::evidence::Evidence;

/// Ids of ended VMs that are kept for one user. The oldest go first.
const MAX_KEPT: usize = 1024;

/// The ids of the last merge, and those of VMs that have ended.
#[derive(Debug, Default)]
pub struct GivenIds {
    /// By the id that the sources know, the process, and the source that says so.
    given: HashMap<(String, u32, usize), String>,
    /// Who had an id last. It is that user's until then; `None` while the VM is there.
    owners: HashMap<String, Owner>,
    retention: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: Option<u32>,
    until: Option<Instant>,
}

/// Whose claim to an id comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A source of the operator names the VM.
    Operator,
    /// The process of a trusted user describes itself.
    Trusted,
    /// The process of another user describes itself.
    Stranger,
}

impl GivenIds {
    pub fn new(retention: Duration) -> Self {
        Self { retention, ..Self::default() }
    }

    /// Whether this user had the id last.
    pub fn was_of(&self, id: &str, uid: Option<u32>) -> bool {
        uid.is_some() && self.owners.get(id).is_some_and(|owner| owner.uid == uid)
    }

    /// How many ids are remembered.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.owners.len()
    }

    /// Gives each VM an id of its own. The source and the text of each problem.
    ///
    /// The first claim counts: the operator's, then a trusted user's. Among others it is the process that had the id,
    /// then the older process. A process keeps the id that it was given, unless a better claim comes.
    pub fn give(&mut self, vms: &mut [Vm], evidence: Evidence, now: Instant) -> Vec<(usize, String)> {
        let before = std::mem::take(&mut self.given);
        let wanted: HashSet<String> = vms.iter().map(|vm| vm.info.id.clone()).collect();
        let mut order: Vec<usize> = (0..vms.len()).collect();
        order.sort_by_cached_key(|at| {
            let vm = &vms[*at];
            let process = vm.info.hypervisor_pid.and_then(|pid| evidence.processes.get(&pid));
            let had_one = key(vm).is_some_and(|key| before.contains_key(&key));
            (vm.claim, !had_one, process.map_or(0, |process| process.start_ticks), *at)
        });
        let mut taken = HashSet::new();
        let mut problems = Vec::new();
        for at in order {
            let vm = &mut vms[at];
            let key = key(vm);
            let had = key.as_ref().and_then(|key| before.get(key)).filter(|id| !taken.contains(*id));
            let may_have = |id: &String| !taken.contains(id) && !self.is_of_another(id, vm);
            let id = match had {
                Some(id) => id.clone(),
                None if may_have(&vm.info.id) => vm.info.id.clone(),
                None => suffixed(vm, at, |id| wanted.contains(id) || taken.contains(id)),
            };
            taken.insert(id.clone());
            self.given.extend(key.map(|key| (key, id.clone())));
            if id != vm.info.id {
                let problem = format!("two VMs with the id {:?}: one is {id:?} here", vm.info.id);
                problems.push((vm.source, problem));
                vm.info.id = id;
            }
        }
        self.remember(vms, now);
        problems.sort();
        problems
    }

    /// Whether another user's VM had this id a short time ago.
    fn is_of_another(&self, id: &str, vm: &Vm) -> bool {
        vm.claim == Claim::Stranger && self.owners.get(id).is_some_and(|owner| owner.uid != vm.info.uid)
    }

    fn remember(&mut self, vms: &[Vm], now: Instant) {
        for owner in self.owners.values_mut() {
            owner.until.get_or_insert(now + self.retention);
        }
        for vm in vms {
            self.owners.insert(vm.info.id.clone(), Owner { uid: vm.info.uid, until: None });
        }
        self.owners.retain(|_, owner| owner.until.is_none_or(|until| until > now));
        self.forget_the_oldest();
    }

    /// Nobody fills the memory by starting and ending VMs.
    fn forget_the_oldest(&mut self) {
        let mut ended: HashMap<Option<u32>, Vec<Instant>> = HashMap::new();
        for owner in self.owners.values() {
            ended.entry(owner.uid).or_default().extend(owner.until);
        }
        ended.retain(|_, times| times.len() > MAX_KEPT);
        for times in ended.values_mut() {
            times.sort_unstable();
        }
        self.owners.retain(|_, owner| {
            let first_kept = ended.get(&owner.uid).map(|times| times[times.len() - MAX_KEPT]);
            owner.until.zip(first_kept).is_none_or(|(until, first)| until >= first)
        });
    }
}

fn key(vm: &Vm) -> Option<(String, u32, usize)> {
    Some((vm.info.id.clone(), vm.info.hypervisor_pid?, vm.source))
}

/// Without a process, the VM's place must tell it apart.
fn suffixed(vm: &Vm, at: usize, is_taken: impl Fn(&String) -> bool) -> String {
    let suffix = vm.info.hypervisor_pid.map_or_else(|| format!("-#{at}"), |pid| format!("-{pid}"));
    let mut id = format!("{}{suffix}", vm.info.id);
    while is_taken(&id) {
        id.push_str(&suffix);
    }
    id
}
