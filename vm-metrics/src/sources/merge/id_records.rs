//! The VMs of each id that are remembered, within bounds.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime};

use super::claims::{IdClaim, Standing};
use super::twins::{IdRecord, ProcessKey, forget_tombstones, tell_apart};
use crate::model::{Nic, fair_share};

/// Ended VMs of trusted users and of the operator that are remembered.
const MAX_TRUSTED: u64 = 16_384;

/// The same of all other users together, and of one of them.
const MAX_OTHERS: u64 = 8_192;
const MAX_OF_USER: u64 = 1_024;

/// How long an ended VM is remembered, in seconds: 30 days.
const MAX_AGE: u64 = 30 * 24 * 3600;

#[derive(Debug)]
pub struct IdRecords {
    boot_id: String,
    /// A moment, and the same in seconds of Unix time.
    epoch: (Instant, u64),
    groups: HashMap<IdClaim, Vec<IdRecord>>,
    /// The ids with a suffix, each with who has it.
    suffixed: HashMap<String, IdClaim>,
    /// Groups of which a VM was there in the last merge.
    active: HashSet<IdClaim>,
    /// The processes that were found in this merge.
    found: HashSet<IdClaim>,
    changed: bool,
}

impl Default for IdRecords {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl IdRecords {
    pub fn new(boot_id: String) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            boot_id,
            epoch: (Instant::now(), unix.as_secs()),
            groups: HashMap::new(),
            suffixed: HashMap::new(),
            active: HashSet::new(),
            found: HashSet::new(),
            changed: false,
        }
    }

    /// Goes on with those that a daemon before this one has left.
    pub fn restore(&mut self, records: Vec<(IdClaim, IdRecord)>) {
        for (id, record) in records {
            if record.ended.is_none() {
                self.active.insert(id.clone());
            }
            self.index(&id, &record);
            self.groups.entry(id).or_default().push(record);
        }
    }

    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// In seconds of Unix time.
    pub fn unix(&self, now: Instant) -> u64 {
        let (instant, unix) = self.epoch;
        unix + now.saturating_duration_since(instant).as_secs()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&IdClaim, &IdRecord)> {
        self.groups.iter().flat_map(|(id, records)| records.iter().map(move |record| (id, record)))
    }

    /// Whether something is to be written down that was not when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn begin(&mut self) {
        self.found.clear();
    }

    pub fn knows(&self, id: &IdClaim, process: ProcessKey) -> bool {
        self.of(id).iter().any(|record| record.is_process(process))
    }

    /// A process keeps its record when its user or standing changes. Nothing but that very process does.
    ///
    /// The operator's word on an id is better than digits that the process had before.
    pub fn follow(&mut self, id: &IdClaim, process: ProcessKey) {
        if process.start_ticks.is_none() || self.knows(id, process) {
            return;
        }
        let is_its = |record: &IdRecord| record.process == Some(process);
        let of_others =
            self.iter().filter(|(former, _)| former.id == id.id && former.standing != id.standing);
        let its = of_others.filter(|(_, record)| is_its(record));
        // The latest, should it have had several.
        let latest =
            its.max_by_key(|(former, record)| (record.ended.is_none(), record.ended, former.standing));
        let Some((former, record)) = latest.map(|(former, record)| (former.clone(), record.clone())) else {
            return;
        };
        if id.standing == Standing::Operator && record.given != id.id {
            return;
        }
        let mut left = self.of(&former).to_vec();
        left.retain(|record| !is_its(record));
        self.replace(&former, left);
        let mut records = self.of(id).to_vec();
        // An id that an ended VM had, too, is this one's now.
        records.retain(|ended| ended.given != record.given);
        records.push(record);
        tell_apart(&mut records);
        self.replace(id, records);
    }

    pub fn of(&self, id: &IdClaim) -> &[IdRecord] {
        self.groups.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Replaces the records of an id. Those that are not at these places have no process now.
    pub fn put(&mut self, id: IdClaim, mut records: Vec<IdRecord>, found: &HashSet<usize>, now: Instant) {
        let now = self.unix(now);
        for (_, record) in records.iter_mut().enumerate().filter(|(at, _)| !found.contains(at)) {
            record.ended.get_or_insert(now);
        }
        forget_tombstones(&mut records);
        if self.of(&id) != records {
            self.replace(&id, records);
        }
        self.found.insert(id);
    }

    fn replace(&mut self, id: &IdClaim, records: Vec<IdRecord>) {
        self.changed = true;
        for record in self.groups.remove(id).unwrap_or_default() {
            if self.suffixed.get(&record.given) == Some(id) {
                self.suffixed.remove(&record.given);
            }
        }
        for record in &records {
            self.index(id, record);
        }
        if !records.is_empty() {
            self.groups.insert(id.clone(), records);
        }
    }

    /// Whether this id is a suffixed one of another group, and not free for this one.
    pub fn is_reserved(&self, id: &str, claimed: &IdClaim) -> bool {
        let owner = self.suffixed.get(id).filter(|owner| *owner != claimed);
        owner.is_some_and(|owner| owner.standing.binds(claimed.standing))
    }

    /// The id of the VM that held one of these NICs last, of several that claim this id.
    pub fn holder_of(&self, id: &IdClaim, nics: &[Nic]) -> Option<String> {
        let held = |record: &&IdRecord| record.nics.iter().any(|nic| nics.contains(nic));
        self.of(id).iter().find(held).map(|record| record.given.clone())
    }

    /// Ends records without a claim in this merge, and forgets old ones and those beyond the limit.
    pub fn end(&mut self, now: Instant) {
        let left: Vec<_> = self.active.difference(&self.found).cloned().collect();
        let found = self.found.clone();
        for id in left {
            let records = self.of(&id).to_vec();
            self.put(id, records, &HashSet::new(), now);
        }
        self.active = found;
        if self.changed {
            self.forget(self.unix(now));
        }
    }

    fn index(&mut self, id: &IdClaim, record: &IdRecord) {
        if record.given != id.id {
            self.suffixed.insert(record.given.clone(), id.clone());
        }
    }

    /// The oldest go first. A user's records push out no records within another user's share.
    fn forget(&mut self, now: u64) {
        let mut ended: HashMap<Standing, Vec<(u64, String)>> = HashMap::new();
        for (IdClaim { standing, .. }, record) in self.iter() {
            if let Some(at) = record.ended {
                ended.entry(*standing).or_default().push((at, record.given.clone()));
            }
        }
        let users = ended.iter().filter(|(standing, _)| standing.is_user());
        let share = fair_share(MAX_OTHERS, users.map(|(_, records)| records.len() as u64)).min(MAX_OF_USER);
        let mut forgotten = HashSet::new();
        for (standing, mut records) in ended {
            let limit = if standing.is_user() { share } else { MAX_TRUSTED };
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            records.sort_unstable();
            let too_many = records.len().saturating_sub(limit);
            let too_old = records.partition_point(|(ended, _)| ended + MAX_AGE < now);
            records.truncate(too_many.max(too_old));
            forgotten.extend(records.into_iter().map(|(_, given)| (standing, given)));
        }
        if forgotten.is_empty() {
            return;
        }
        self.groups.retain(|IdClaim { standing, .. }, records| {
            records.retain(|record| {
                record.ended.is_none() || !forgotten.contains(&(*standing, record.given.clone()))
            });
            !records.is_empty()
        });
        let groups = &self.groups;
        self.suffixed.retain(|given, id| {
            groups.get(id).is_some_and(|records| records.iter().any(|record| record.given == *given))
        });
    }
}
