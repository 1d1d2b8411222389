//! The counters of TAPs, mapped into this process.

use aya::maps::{Array, Map, MapData};
use vm_metrics_common::Counters;

use super::super::error::LoadError;
use super::super::mapped_array::MappedArray;

/// The map `COUNTERS`: for each slot one entry per possible CPU.
pub(crate) struct CounterMap {
    map: Array<MapData, Counters>,
    mapped: MappedArray<Counters>,
    cpus: u32,
}

impl CounterMap {
    pub(crate) fn new(map: Map, cpus: u32) -> Result<Self, LoadError> {
        let Map::Array(data) = &map else { return Err(LoadError::NoArray) };
        let mapped = MappedArray::new(data)?;
        Ok(Self { map: Array::try_from(map)?, mapped, cpus })
    }

    pub(crate) fn slots(&self) -> u32 {
        self.mapped.entries() / self.cpus
    }

    /// The counters of a slot, all CPUs added up. Each number is whole; two of them may be a frame apart.
    pub(crate) fn read(&self, slot: u32) -> Counters {
        assert!(slot < self.slots(), "slot {slot} of {}", self.slots());
        self.mapped.sum(slot * self.cpus, self.cpus)
    }

    /// Sets a slot to zero, before an interface gets it; no program writes to it then.
    pub(crate) fn clear(&mut self, slot: u32) -> Result<(), LoadError> {
        for cpu in 0..self.cpus {
            self.map.set(slot * self.cpus + cpu, Counters::default(), 0)?;
        }
        Ok(())
    }
}
