//! Assigns a unique id to each VM.
//!
//! No user takes the id of another user's VM, and a VM keeps its id.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::MergedVm;
use super::claims::{IdClaim, Standing};
use super::evidence::Evidence;
use super::fingerprints::short_hash;
use super::id_records::IdRecords;
use super::twins::{Assignment, Claimant, IdRecord, ProcessKey, assign};

/// Ids of ended VMs that are kept for one user. The oldest go first.
const MAX_KEPT: usize = 1024;

/// The ids that VMs have or had.
#[derive(Debug, Default)]
pub struct IdAssigner {
    pub(super) records: IdRecords,
    /// Who had an id last. It is that user's until then; `None` while the VM is there.
    owners: HashMap<String, Owner>,
    retention: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: Option<u32>,
    is_stranger: bool,
    until: Option<Instant>,
}

/// The VMs of equal standing that claim one id; or one VM without a process.
struct ClaimGroup {
    id: IdClaim,
    vms: Vec<usize>,
    has_processes: bool,
}

/// The ids of one merge.
struct IdAllocation {
    taken: HashSet<String>,
    /// The best claim to each id.
    wanted: HashMap<String, Standing>,
}

impl IdAssigner {
    pub fn new(retention: Duration, boot_id: String) -> Self {
        Self { retention, records: IdRecords::new(boot_id), ..Self::default() }
    }

    /// Whether this user had the id last.
    pub fn was_of(&self, id: &str, uid: Option<u32>) -> bool {
        uid.is_some() && self.owners.get(id).is_some_and(|owner| owner.uid == uid)
    }

    /// Users keep the ids that their VMs had when the last daemon ended.
    pub(super) fn restore_owners(&mut self, now: Instant) {
        let until = Some(now + self.retention);
        let since = self.records.unix(now).saturating_sub(self.retention.as_secs());
        let is_kept = |record: &IdRecord| record.ended.is_none_or(|ended| ended > since);
        let mut kept: Vec<_> = self.records.iter().filter(|(_, record)| is_kept(record)).collect();
        // Of several owners of an id the last one counts here: the best standing, then the latest end.
        kept.sort_by_key(|(id, record)| (Reverse(id.standing), record.ended.is_none(), record.ended));
        for (IdClaim { standing, .. }, record) in kept {
            let is_stranger = standing.is_user();
            self.owners.insert(record.given.clone(), Owner { uid: record.uid, is_stranger, until });
        }
    }

    /// How many ids are remembered.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.owners.len().max(self.records.iter().count())
    }

    /// Gives each VM an id of its own. The source and the text of each problem.
    ///
    /// The first claim counts: the operator's, then a trusted user's. Among other users it is the one whose process had the
    /// id, then the one with the oldest process. VMs of equal standing are told apart by [`assign`].
    pub fn give(&mut self, vms: &mut [MergedVm], evidence: Evidence, now: Instant) -> Vec<(usize, String)> {
        let mut round = IdAllocation { taken: HashSet::new(), wanted: HashMap::new() };
        for vm in vms.iter() {
            let rank = vm.standing.rank();
            let best = round.wanted.entry(vm.info.id.clone()).or_insert(rank);
            *best = rank.min(*best);
        }
        let mut problems = Vec::new();
        self.records.begin();
        for vm in vms.iter() {
            let id = vm.claim();
            process(vm, evidence).into_iter().for_each(|process| self.records.follow(&id, process));
        }
        for claimed in self.in_order(vms, evidence) {
            let given = match claimed.has_processes {
                true => self.give_group(&claimed, vms, (evidence, now), &round),
                false => vec![self.give_lone(&claimed, &vms[claimed.vms[0]], &round)],
            };
            for (at, id) in claimed.vms.iter().zip(given) {
                let vm = &mut vms[*at];
                round.taken.insert(id.clone());
                if id != vm.info.id {
                    let problem = format!("two VMs with the id {:?}: one is {id:?} here", vm.info.id);
                    problems.push((vm.source, problem));
                    vm.info.id = id;
                }
            }
        }
        self.records.end(now);
        self.remember(vms, now);
        problems.sort();
        problems
    }

    /// The best claims first.
    fn in_order(&self, vms: &[MergedVm], evidence: Evidence) -> Vec<ClaimGroup> {
        let mut groups: HashMap<IdClaim, ClaimGroup> = HashMap::new();
        let mut lone = Vec::new();
        for (at, vm) in vms.iter().enumerate() {
            let id = vm.claim();
            if vm.info.hypervisor_pid.is_some() {
                let new = |id| ClaimGroup { id, vms: Vec::new(), has_processes: true };
                groups.entry(id.clone()).or_insert_with(|| new(id)).vms.push(at);
            } else {
                lone.push(ClaimGroup { id, vms: vec![at], has_processes: false });
            }
        }
        let rank = |claimed: &ClaimGroup| {
            let had_it = |at: &usize| {
                let process = process(&vms[*at], evidence);
                process.is_some_and(|process| self.records.knows(&claimed.id, process))
            };
            let start = |at: &usize| process(&vms[*at], evidence)?.start_ticks;
            let oldest = claimed.vms.iter().map(|at| start(at).unwrap_or_default()).min();
            (claimed.id.standing.rank(), !claimed.vms.iter().any(had_it), oldest, claimed.vms[0])
        };
        let mut all: Vec<_> = groups.into_values().chain(lone).collect();
        all.sort_by_cached_key(rank);
        all
    }

    fn give_group(
        &mut self,
        claimed: &ClaimGroup,
        vms: &[MergedVm],
        (evidence, now): (Evidence, Instant),
        round: &IdAllocation,
    ) -> Vec<String> {
        let members = || claimed.vms.iter().map(|at| &vms[*at]);
        let claimants: Vec<_> = members().filter_map(|vm| claimant(vm, evidence)).collect();
        let mut records = self.records.of(&claimed.id).to_vec();
        let found = assign(&mut records, &claimants);
        let plain = &claimed.id.id;
        let is_only = records.len() == 1;
        let (mut given, mut in_use) = (Vec::new(), HashSet::new());
        for (Assignment { record: at, is_known }, vm) in found.iter().zip(members()) {
            let is_free = |id: &String| {
                !round.taken.contains(id)
                    && !in_use.contains(id)
                    && (*is_known || !self.is_of_another(id, vm))
                    && !self.records.is_reserved(id, &claimed.id)
            };
            let had = Some(records[*at].given.clone()).filter(|had| !had.is_empty() && is_free(had));
            // The id as it stands is for a VM that never had another of the same id beside it.
            let is_new = records[*at].given.is_empty() && is_only;
            let id = had.or_else(|| Some(plain.clone()).filter(|plain| is_new && is_free(plain)));
            let id = id.unwrap_or_else(|| {
                let telling = self.telling(&records[*at], claimed.id.standing);
                let is_new = |id: &String| records.iter().all(|record| record.given != *id);
                suffixed(plain, telling, |id| {
                    is_free(id) && is_new(id) && !self.is_claimed(id, claimed, round)
                })
            });
            records[*at].given.clone_from(&id);
            in_use.insert(id.clone());
            given.push(id);
        }
        if records.len() > 1 {
            for (Assignment { record, .. }, vm) in found.iter().zip(members()) {
                records[*record].nics.clone_from(&vm.info.nics);
            }
        }
        let found = found.into_iter().map(|assigned| assigned.record).collect();
        self.records.put(claimed.id.clone(), records, &found, now);
        given
    }

    /// Whether a VM of the same or a better claim has this for its id, or had.
    fn is_claimed(&self, id: &str, claimed: &ClaimGroup, round: &IdAllocation) -> bool {
        let is_wanted = round.wanted.get(id).is_some_and(|best| *best <= claimed.id.standing.rank());
        let standings = [Standing::Operator, Standing::Trusted, claimed.id.standing];
        let mut had = standings.map(|standing| IdClaim { id: id.to_owned(), standing }).into_iter();
        is_wanted || had.any(|id| id.standing <= claimed.id.standing && !self.records.of(&id).is_empty())
    }

    /// Users never share a suffix.
    fn telling(&self, record: &IdRecord, standing: Standing) -> String {
        let telling = record.telling(self.records.boot_id());
        match standing {
            Standing::User(uid) => format!("{telling} {uid:?}"),
            Standing::Operator | Standing::Trusted => telling,
        }
    }

    /// Of a VM without a process: one whose process has ended while its TAP is held has the id that it had.
    fn give_lone(&self, claimed: &ClaimGroup, vm: &MergedVm, round: &IdAllocation) -> String {
        let is_free = |id: &String| !round.taken.contains(id) && !self.is_of_another(id, vm);
        let had = self.records.holder_of(&claimed.id, &vm.info.nics).filter(is_free);
        had.or_else(|| Some(vm.info.id.clone()).filter(is_free)).unwrap_or_else(|| {
            // Its position distinguishes it.
            let suffix = format!("-#{}", claimed.vms[0]);
            let mut id = format!("{}{suffix}", vm.info.id);
            while round.taken.contains(&id) || round.wanted.contains_key(&id) {
                id.push_str(&suffix);
            }
            id
        })
    }

    /// Whether another user's VM had this id a short time ago.
    fn is_of_another(&self, id: &str, vm: &MergedVm) -> bool {
        let is_others = |owner: &Owner| owner.uid != vm.info.uid || owner.uid.is_none() && !owner.is_stranger;
        vm.standing.is_user() && self.owners.get(id).is_some_and(is_others)
    }

    fn remember(&mut self, vms: &[MergedVm], now: Instant) {
        for owner in self.owners.values_mut() {
            owner.until.get_or_insert(now + self.retention);
        }
        for vm in vms {
            let owner = Owner { uid: vm.info.uid, is_stranger: vm.standing.is_user(), until: None };
            self.owners.insert(vm.info.id.clone(), owner);
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

fn process(vm: &MergedVm, evidence: Evidence) -> Option<ProcessKey> {
    let pid = vm.info.hypervisor_pid?;
    let start_ticks = evidence.processes.get(&pid).map(|process| process.start_ticks);
    Some(ProcessKey { pid, start_ticks })
}

fn claimant(vm: &MergedVm, evidence: Evidence) -> Option<Claimant> {
    let process = process(vm, evidence)?;
    let known = evidence.processes.get(&process.pid);
    let came_from = known.and_then(|known| known.came_from);
    Some(Claimant {
        process,
        uid: vm.info.uid,
        came_from: came_from.map(|(pid, start)| ProcessKey { pid, start_ticks: Some(start) }),
        fingerprints: known.map(|known| match vm.standing {
            Standing::Operator => known.fingerprints.of_operators(),
            Standing::Trusted | Standing::User(_) => known.fingerprints,
        }),
    })
}

/// The id with six digits of a hash.
fn suffixed(id: &str, mut telling: String, is_free: impl Fn(&String) -> bool) -> String {
    loop {
        let candidate = format!("{id}-{}", short_hash(&telling));
        if is_free(&candidate) {
            return candidate;
        }
        telling.push('+');
    }
}
