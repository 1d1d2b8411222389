//! Gives out slots of the counter map, and keeps the table of the programs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use vm_metrics_common::TableEntry;

use super::super::error::LoadError;
use super::load::LoadedPrograms;

/// Hands out slots, the longest unused first. Detaching waits until no CPU runs the program any more, so a slot that was
/// given back has no writer.
#[derive(Debug)]
pub(crate) struct Slots {
    free: VecDeque<u32>,
    /// Which interface holds a table entry; the others with the same index are in the hash.
    holders: HashMap<u32, u32>,
}

impl Slots {
    /// The slots that a daemon before this one has left in the pinned maps: which interface counts where. An entry that
    /// cannot be is removed.
    pub(crate) fn restore(loaded: &mut LoadedPrograms) -> Result<(Self, HashMap<u32, u32>), LoadError> {
        let slots = loaded.counters.slots();
        let mut restored = HashMap::new();
        let mut holders = HashMap::new();
        let mut taken = HashSet::new();
        let table_size = loaded.table.len();
        for index in 0..table_size {
            let TableEntry { ifindex, slot } = loaded.table.get(&index, 0)?;
            if ifindex == 0 {
                continue;
            }
            if ifindex % table_size == index && slot < slots && taken.insert(slot) {
                holders.insert(index, ifindex);
                restored.insert(ifindex, slot);
            } else {
                loaded.table.set(index, TableEntry::default(), 0)?;
            }
        }
        let collisions: Vec<(u32, u32)> = loaded.collisions.iter().collect::<Result<_, _>>()?;
        for (ifindex, slot) in collisions {
            if slot < slots && !restored.contains_key(&ifindex) && taken.insert(slot) {
                restored.insert(ifindex, slot);
            } else {
                loaded.collisions.remove(&ifindex)?;
            }
        }
        let free = (0..slots).filter(|slot| !taken.contains(slot)).collect();
        Ok((Self { free, holders }, restored))
    }

    /// How many interfaces more can have one.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Gives the interface a cleared slot and makes the programs know it; `None` when all are in use.
    pub(crate) fn assign(
        &mut self,
        loaded: &mut LoadedPrograms,
        ifindex: u32,
    ) -> Result<Option<u32>, LoadError> {
        let Some(slot) = self.free.pop_front() else { return Ok(None) };
        match self.publish(loaded, ifindex, slot) {
            Ok(()) => Ok(Some(slot)),
            Err(error) => {
                self.free.push_front(slot);
                Err(error)
            }
        }
    }

    /// Takes the slot back. The programs no longer run on the interface.
    pub(crate) fn release(
        &mut self,
        loaded: &mut LoadedPrograms,
        ifindex: u32,
        slot: u32,
    ) -> Result<(), LoadError> {
        let index = ifindex % loaded.table.len();
        self.free.push_back(slot);
        if self.holders.get(&index) == Some(&ifindex) {
            self.holders.remove(&index);
            loaded.table.set(index, TableEntry::default(), 0)?;
        } else {
            loaded.collisions.remove(&ifindex)?;
        }
        Ok(())
    }

    fn publish(&mut self, loaded: &mut LoadedPrograms, ifindex: u32, slot: u32) -> Result<(), LoadError> {
        loaded.counters.clear(slot)?;
        let index = ifindex % loaded.table.len();
        match self.holders.entry(index) {
            Entry::Occupied(_) => loaded.collisions.insert(ifindex, slot, 0)?,
            Entry::Vacant(free) => {
                loaded.table.set(index, TableEntry { ifindex, slot }, 0)?;
                free.insert(ifindex);
            }
        }
        Ok(())
    }
}
