//! Loads the programs into the kernel, with new or pinned maps.

use std::path::Path;
use std::sync::OnceLock;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use log::Log;
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, setrlimit};
use vm_metrics_common::{
    Counters, GLOBAL_LAYOUT, Layout, MAX_COLLISIONS, Splits, TABLE_SIZE, TableEntry, names,
};

use super::super::cpus::cpu_ids;
use super::super::error::LoadError;
use super::counters::CounterMap;
use super::pins::{Pins, is_there};
use crate::model::{AttachMode, EbpfReading};

/// Where the programs write what they have to say: aya-log's.
const MAP_LOG: &str = "AYA_LOGS";

/// Built by `build.rs` from `vm-metrics-ebpf`; aligned, because the loader reads it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vm-metrics.bpf.o"));

/// Loads the programs any number of times.
pub(crate) struct Loader {
    loader: EbpfLoader<'static>,
    cpus: u32,
    /// Whether the programs are told where the kernel has what they read.
    knows_layout: bool,
}

/// The programs in the kernel, with their maps.
pub(crate) struct LoadedPrograms {
    programs: Programs,
    pub(crate) counters: CounterMap,
    pub(crate) table: Array<MapData, TableEntry>,
    pub(crate) collisions: HashMap<MapData, u32, u32>,
    /// Whether `egress_segmented` counts.
    knows_segmentation: bool,
    logger: EbpfLogger<&'static dyn Log>,
}

/// How large the maps of one load are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// TAPs that can be counted at the same time.
    pub(crate) nics: u32,
    /// The size of the table less one.
    table_mask: &'static u32,
    collisions: u32,
    log_bytes: u32,
    is_one_of_many: bool,
}

/// The programs in the kernel.
enum Programs {
    Whole(Ebpf),
    /// Without all that it took to load them, which is some 300 KB of memory.
    Bare(Box<[SchedClassifier; 2]>),
}

impl Size {
    /// One load, made once.
    pub(crate) fn of_own_namespace(max_nics: u32) -> Self {
        const MASK: u32 = TABLE_SIZE - 1;
        Self {
            nics: max_nics,
            table_mask: &MASK,
            collisions: MAX_COLLISIONS,
            log_bytes: 128 << 10,
            is_one_of_many: false,
        }
    }

    /// One of perhaps thousands.
    pub(crate) fn of_other_namespace(nics: u32) -> Self {
        const MASK: u32 = 63;
        let log_bytes = u32::try_from(page_size()).unwrap_or(64 << 10);
        Self { nics, table_mask: &MASK, collisions: nics, log_bytes, is_one_of_many: true }
    }
}

impl Loader {
    /// Without the layout the programs look at frames only.
    pub(crate) fn new(layout: Option<Layout>, splits: Splits) -> Result<Self, LoadError> {
        // Before 5.11 maps count against this limit; later kernels do not look at it.
        let unlimited = Rlimit { current: None, maximum: None };
        if let Err(errno) = setrlimit(Resource::Memlock, unlimited) {
            tracing::debug!("RLIMIT_MEMLOCK stays as it is: {errno}");
        }
        let mut loader = EbpfLoader::new();
        // The programs are not relocated against the kernel's types, which are 30 MB of memory.
        loader.btf(None);
        let cpus = cpu_ids()?;
        loader.override_global(names::GLOBAL_CPUS, cpus, true);
        // One number for each start of a reader.
        loader.override_global(names::GLOBAL_SPLITS, &*Box::leak(Box::new(splits)), true);
        if let Some(layout) = layout {
            loader.override_global(GLOBAL_LAYOUT, LAYOUT.get_or_init(|| layout), true);
        }
        Ok(Self { loader, cpus: *cpus, knows_layout: layout.is_some() })
    }

    /// With pins all of the time, or never.
    pub(crate) fn load(&mut self, size: Size, pins: Option<&Pins>) -> Result<LoadedPrograms, LoadError> {
        let result = self.try_load(size, pins);
        let Err(refused) = &result else { return result };
        if !self.knows_layout || !matches!(refused, LoadError::Program(ProgramError::LoadError { .. })) {
            return result;
        }
        // The verifier: perhaps only what they read of the kernel's own is refused.
        self.knows_layout = false;
        self.loader.override_global(GLOBAL_LAYOUT, &UNKNOWN, true);
        let loaded = self.try_load(size, pins);
        if loaded.is_ok() {
            tracing::warn!("the programs may not read the kernel's structures: {}", refused.in_one_line());
        } else if let Some(layout) = LAYOUT.get() {
            self.knows_layout = true;
            self.loader.override_global(GLOBAL_LAYOUT, layout, true);
        }
        loaded
    }

    fn try_load(&mut self, size: Size, pins: Option<&Pins>) -> Result<LoadedPrograms, LoadError> {
        let Self { loader, cpus, knows_layout } = self;
        let (max_nics, cpus) = (size.nics, *cpus);
        let entries = max_nics.checked_mul(cpus).ok_or(LoadError::TooManyNics { max_nics, cpus })?;
        loader
            .map_max_entries(names::MAP_COUNTERS, entries)
            .map_max_entries(names::MAP_TABLE, size.table_mask + 1)
            .map_max_entries(names::MAP_COLLISIONS, size.collisions)
            .map_max_entries(MAP_LOG, size.log_bytes)
            .override_global(names::GLOBAL_TABLE_MASK, size.table_mask, true);
        for (name, key_size, value_size) in SHAPES {
            let Some(pins) = pins else { break };
            let path = pins.map(name);
            check_shape(&path, key_size, value_size, size)?;
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let logger =
            EbpfLogger::init(&mut ebpf).map_err(|_| LoadError::Missing { kind: "map", name: MAP_LOG })?;
        for name in NAMES {
            classifier(&mut ebpf, name)?.load()?;
        }
        let counters = CounterMap::new(take(&mut ebpf, names::MAP_COUNTERS)?, cpus)?;
        let table = Array::try_from(take(&mut ebpf, names::MAP_TABLE)?)?;
        let collisions = HashMap::try_from(take(&mut ebpf, names::MAP_COLLISIONS)?)?;
        let programs = if size.is_one_of_many { Programs::bare(ebpf) } else { Programs::Whole(ebpf) };
        Ok(LoadedPrograms {
            programs,
            counters,
            table,
            collisions,
            logger,
            knows_segmentation: *knows_layout,
        })
    }
}

/// The loader keeps globals by reference.
static LAYOUT: OnceLock<Layout> = OnceLock::new();

/// Makes the programs leave the kernel's structures alone.
static UNKNOWN: Layout = Layout::UNKNOWN;

const NAMES: [&str; 2] = [names::PROGRAM_INGRESS, names::PROGRAM_EGRESS];

impl Programs {
    /// The kernel is asked for the programs once more, by their number. Where it does not give them away like that, they
    /// stay as they are.
    fn bare(ebpf: Ebpf) -> Self {
        let once_more = |name: &'static str| {
            let info = ebpf.program(name)?.info().ok()?;
            SchedClassifier::from_program_info(info, name.into()).ok()
        };
        match NAMES.map(once_more) {
            [Some(ingress), Some(egress)] => Self::Bare(Box::new([ingress, egress])),
            _ => Self::Whole(ebpf),
        }
    }
}

impl LoadedPrograms {
    pub(crate) fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        match &mut self.programs {
            Programs::Whole(ebpf) => classifier(ebpf, name),
            Programs::Bare(programs) => {
                let at = NAMES.iter().position(|known| *known == name);
                let at = at.ok_or(LoadError::Missing { kind: "program", name })?;
                Ok(&mut programs[at])
            }
        }
    }

    pub(crate) fn reading(&self, slot: u32, attach: AttachMode) -> EbpfReading {
        let (counters, knows_segmentation) = (self.counters.read(slot), self.knows_segmentation);
        EbpfReading { attach, counters, since: None, knows_segmentation }
    }

    /// Passes on what the programs had to say; from memory, without a system call.
    pub(crate) fn flush_log(&mut self) {
        self.logger.flush();
    }
}

/// The maps that can be pinned, with the sizes of their keys and values.
const SHAPES: [(&str, usize, usize); 3] = [
    (names::MAP_COUNTERS, size_of::<u32>(), size_of::<Counters>()),
    (names::MAP_TABLE, size_of::<u32>(), size_of::<TableEntry>()),
    (names::MAP_COLLISIONS, size_of::<u32>(), size_of::<u32>()),
];

/// A pinned map is taken as it is, and the programs would write beyond values that are smaller than they think.
fn check_shape(path: &Path, key_size: usize, value_size: usize, size: Size) -> Result<(), LoadError> {
    if !is_there(path)? {
        return Ok(());
    }
    let info = MapInfo::from_pin(path)?;
    let fits = info.key_size() as usize == key_size
        && info.value_size() as usize == value_size
        && (!path.ends_with(names::MAP_TABLE) || info.max_entries() == size.table_mask + 1);
    if fits { Ok(()) } else { Err(LoadError::OtherShape { path: path.to_owned() }) }
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing { kind: "program", name })?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing { kind: "map", name })
}
