//! The program at the kernel's task iterator, with its maps.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::sync::OnceLock;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::Iter;
use aya::{Btf, Ebpf, EbpfLoader};
use vm_metrics_common::{TaskGroup, TaskLayout, TaskRun, names, task_names};

use crate::readers::tap::ebpf::cpus::cpu_ids;
use crate::readers::tap::ebpf::error::LoadError;
use crate::readers::tap::ebpf::mapped_array::MappedArray;

/// Built by `build.rs` from `vm-metrics-ebpf`; aligned, because the loader reads it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vm-metrics-tasks.bpf.o"));

/// The loader keeps globals by reference.
static LAYOUT: OnceLock<TaskLayout> = OnceLock::new();

pub(super) struct TaskProgram {
    ebpf: Ebpf,
    runs: Array<MapData, TaskRun>,
    slots: HashMap<MapData, u32, u32>,
    groups: MappedArray<TaskGroup>,
    /// The entries of processes that are read.
    slot_of: std::collections::HashMap<u32, u32>,
    free: Vec<u32>,
    cpus: u32,
}

impl TaskProgram {
    /// For so many processes.
    pub(super) fn load(layout: &TaskLayout, processes: u32) -> Result<Self, LoadError> {
        let cpus = cpu_ids()?;
        // A CPU that cannot exist has no share of a counter, and the kernel gives its memory no place.
        if aya::util::nr_cpus().ok() != usize::try_from(*cpus).ok() {
            return Err(LoadError::CpuGaps);
        }
        let mut loader = EbpfLoader::new();
        // The program is not relocated against the kernel's types, which are 30 MB of memory.
        loader
            .btf(None)
            .override_global(task_names::GLOBAL_LAYOUT, LAYOUT.get_or_init(|| *layout), true)
            .override_global(names::GLOBAL_CPUS, cpus, true)
            .map_max_entries(task_names::MAP_SLOTS, processes)
            .map_max_entries(task_names::MAP_GROUPS, processes)
            .map_max_entries(task_names::MAP_DISTANCES, *cpus);
        let mut ebpf = loader.load(OBJECT)?;
        program(&mut ebpf)?.load(task_names::TARGET, &Btf::from_sys_fs()?)?;
        let groups = take(&mut ebpf, task_names::MAP_GROUPS)?;
        let Map::Array(groups) = &groups else { return Err(LoadError::NoArray) };
        Ok(Self {
            runs: Array::try_from(take(&mut ebpf, task_names::MAP_RUN)?)?,
            slots: HashMap::try_from(take(&mut ebpf, task_names::MAP_SLOTS)?)?,
            groups: MappedArray::new(groups)?,
            slot_of: std::collections::HashMap::new(),
            free: (0..processes).rev().collect(),
            cpus: *cpus,
            ebpf,
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.groups.entries() as usize
    }

    /// Reads these processes from now on, and no others. They are no more than the capacity.
    pub(super) fn follow(&mut self, pids: &HashSet<u32>) -> Result<(), LoadError> {
        for (pid, slot) in self.slot_of.extract_if(|pid, _| !pids.contains(pid)) {
            self.slots.remove(&pid)?;
            self.free.push(slot);
        }
        for pid in pids {
            if self.slot_of.contains_key(pid) {
                continue;
            }
            let Some(slot) = self.free.pop() else { break };
            self.slots.insert(pid, slot, 0)?;
            self.slot_of.insert(*pid, slot);
        }
        Ok(())
    }

    /// Has the kernel call the program for each thread. A file of the iterator can be read once.
    pub(super) fn run(&mut self) -> Result<TaskRun, LoadError> {
        let program = program(&mut self.ebpf)?;
        let link = program.attach()?;
        let mut file = program.take_link(link)?.into_file()?;
        loop {
            // The program writes nothing, so the first answer is the end.
            match file.read(&mut [0; 8]) {
                Ok(0) => break,
                Ok(_) => {}
                // After a million threads the kernel wants to be asked again.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(LoadError::Iterate(error)),
            }
        }
        Ok(self.runs.get(&0, 0)?)
    }

    /// Whether the program can read memory. It learns the way to one CPU's share at each thread.
    pub(super) fn is_ready(&self, run: TaskRun) -> bool {
        run.measured_cpus >= self.cpus
    }

    /// The processes of this round that were read as a whole.
    pub(super) fn whole_groups(&self, run: TaskRun) -> impl Iterator<Item = (u32, TaskGroup)> {
        let groups = self.slot_of.iter().map(|(pid, slot)| (*pid, self.groups.read(*slot)));
        groups.filter(move |(_, group)| group.is_whole(run.round))
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Iter, LoadError> {
    let missing = LoadError::Missing { kind: "program", name: task_names::PROGRAM };
    Ok(ebpf.program_mut(task_names::PROGRAM).ok_or(missing)?.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing { kind: "map", name })
}
