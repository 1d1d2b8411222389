//! Counts dropped frames for guests, by a program on the tracepoint `kfree_skb`.
//!
//! It runs at every drop on the host and looks its device up in a map. Only TAPs of VMs are in that map, so nothing else
//! is counted or takes up memory. One program serves all network namespaces. Where the kernel refuses it, the reader
//! says so and everything else goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, MapError, MapInfo, PerCpuHashMap, PerCpuValues};
use aya::programs::BtfTracePoint;
use aya::programs::links::{FdLink, PinnedLink};
use aya::{Btf, Ebpf, EbpfLoader};
use rustix::io::Errno;
use vm_metrics_common::{DropCounts, DropKey, GLOBAL_LAYOUT, Layout, Reasons, drop_names};

use super::error::{LoadError, errno_of, unless};
use super::kernel::Kernel;
use super::programs::pins::{Pins, is_there, remove_file};
use crate::model::{Batch, Device, DeviceId};
use crate::readers::ReaderError;

/// Built by `build.rs` from `vm-metrics-ebpf`; aligned, because the loader reads it in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vm-metrics-drops.bpf.o"));

/// Counters of TAPs that are gone are kept for so many ticks, for their last words.
const KEEP: u64 = 2;

/// `BPF_NOEXIST`
const IF_ABSENT: u64 = 1;

/// TAPs in all network namespaces; room for one is only taken when it comes.
const MAX_TAPS: u32 = 1 << 16;

/// The program, with what it counts.
pub(crate) struct Drops {
    counts: PerCpuHashMap<MapData, DropKey, DropCounts>,
    /// The TAPs that are counted.
    followed: HashMap<DropKey, CountedTap>,
    tick: u64,
    own_netns: u32,
    /// Takes the program off when dropped; `None` where a pin holds it.
    _program: Option<Ebpf>,
}

/// A TAP of this tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowedTap {
    /// The inode of its network namespace, when it is not that of this process.
    pub(crate) netns: Option<u64>,
    pub(crate) ifindex: u32,
    /// `None` while no VM had it.
    pub(crate) device: Option<DeviceId>,
    /// Whether the programs on it have been counting before this tick.
    pub(crate) counts: bool,
    /// Whether a VM has it: one that none has is counted as long as the programs are on it, for it may come back.
    pub(crate) wanted: bool,
}

#[derive(Debug)]
struct CountedTap {
    device: Option<DeviceId>,
    wanted: bool,
    /// The tick in which it was last there.
    seen: u64,
}

/// Where the map and the attachment stay while no daemon runs.
#[derive(Debug)]
pub(crate) struct DropPins {
    map: PathBuf,
    link: PathBuf,
}

impl DropPins {
    pub(crate) fn of(pins: &Pins) -> Self {
        Self { map: pins.map(drop_names::MAP_DROPS), link: pins.map("drops-link") }
    }
}

impl Drops {
    /// With pins, what a daemon before this one has left goes on: a tracepoint has no link update, and a program that
    /// counted otherwise would be another ABI version.
    pub(crate) fn new(kernel: &Kernel, own_netns: u64, pins: Option<DropPins>) -> Result<Self, LoadError> {
        let own_netns = inode(own_netns)?;
        let left = pins.as_ref().and_then(|pins| left_behind(pins).transpose()).transpose()?;
        let (map, program) = match left {
            Some(map) => (map, None),
            None => {
                let (mut ebpf, map) = load(&kernel.layout()?, &kernel.reasons()?, pins.as_ref())?;
                attach(&mut ebpf, pins.as_ref())?;
                (map, pins.is_none().then_some(ebpf))
            }
        };
        let counts = PerCpuHashMap::try_from(map)?;
        Ok(Self { counts, followed: HashMap::new(), tick: 0, own_netns, _program: program })
    }

    /// Some time after a start: throws away what was counted for devices that are no VM's any more.
    pub(crate) fn keep_only_followed(&mut self) -> Result<(), LoadError> {
        for key in self.counts.keys().collect::<Result<Vec<_>, _>>()? {
            if !self.followed.contains_key(&key) {
                self.counts.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Counts for all TAPs of this tick from now on. To be called before programs are attached to new ones, so that no
    /// frame is offered whose drop would not be seen.
    pub(crate) fn follow(&mut self, present: impl IntoIterator<Item = FollowedTap>) -> Result<(), LoadError> {
        self.tick += 1;
        let tick = self.tick;
        // Those that are gone make room first; those of the last tick still have last words to say.
        let gone: Vec<_> =
            self.followed.extract_if(|_, known| tick - known.seen > KEEP).map(|(key, _)| key).collect();
        let mut followed = gone.into_iter().try_for_each(|key| self.forget(key));
        for one in present {
            followed = followed.and(self.follow_one(one));
        }
        followed
    }

    fn follow_one(&mut self, one: FollowedTap) -> Result<(), LoadError> {
        let FollowedTap { netns, ifindex, device, counts, wanted } = one;
        let key = self.key(netns, ifindex)?;
        let known = self.followed.get(&key);
        let is_known = known.is_some_and(|known| known.device == device && known.seen + 1 >= self.tick);
        if !is_known {
            if !counts {
                // Of another device that had the index.
                self.forget(key)?;
            }
            self.add(key)?;
        }
        self.followed.insert(key, CountedTap { device, wanted, seen: self.tick });
        Ok(())
    }

    /// To be called before the counters of the TAPs are read: so what was dropped has been offered.
    pub(crate) fn read(&self, batch: &mut Batch) -> Result<(), LoadError> {
        for readings in &mut batch.nics {
            let Some(Device { id, .. }) = readings.device else { continue };
            let key = self.key(id.netns, id.ifindex)?;
            let known = self.followed.get(&key);
            if known.is_some_and(|known| known.device == Some(id) && known.wanted && known.seen == self.tick)
            {
                readings.drops = Some(self.count(&key)?);
            }
        }
        Ok(())
    }

    /// Of a TAP that is gone, or no VM's any more. `None` where another device has its index, and so the count.
    pub(crate) fn read_final(&self, device: DeviceId) -> Option<DropCounts> {
        let key = self.key(device.netns, device.ifindex).ok()?;
        let is_another = |known: &CountedTap| known.device.is_some_and(|known| known != device);
        if self.followed.get(&key).is_some_and(is_another) {
            return None;
        }
        self.count(&key).ok()
    }

    fn key(&self, netns: Option<u64>, ifindex: u32) -> Result<DropKey, LoadError> {
        Ok(DropKey { netns: netns.map_or(Ok(self.own_netns), inode)?, ifindex })
    }

    fn forget(&mut self, key: DropKey) -> Result<(), LoadError> {
        match self.counts.remove(&key) {
            Err(error) if errno_of(&error) != Some(Errno::NOENT.raw_os_error()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What a daemon before this one has counted stays.
    fn add(&mut self, key: DropKey) -> Result<(), LoadError> {
        let cpus =
            aya::util::nr_cpus().map_err(|(path, source)| LoadError::Cpus { path: path.into(), source })?;
        let zeroes = PerCpuValues::try_from(vec![DropCounts::default(); cpus])
            .map_err(|source| LoadError::Map(MapError::IoError(source)))?;
        match self.counts.insert(key, zeroes, IF_ABSENT) {
            Err(error) if errno_of(&error) != Some(Errno::EXIST.raw_os_error()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn count(&self, key: &DropKey) -> Result<DropCounts, LoadError> {
        let cpus = self.counts.get(key, 0)?;
        Ok(cpus.iter().fold(DropCounts::default(), |sum, cpu| sum.plus(*cpu)))
    }
}

/// What the reader reports of drops that it cannot see.
pub(crate) fn unseen(error: &LoadError) -> ReaderError {
    ReaderError::NoDrops { problem: error.in_one_line(), errno: errno_of(error) }
}

/// The kernel has inodes of namespaces in 32 bits.
fn inode(netns: u64) -> Result<u32, LoadError> {
    u32::try_from(netns).map_err(|_| LoadError::WideNamespace { netns })
}

/// The map of a program that is still attached, or nothing when there is none.
fn left_behind(pins: &DropPins) -> Result<Option<Map>, LoadError> {
    let link = unless(&[Errno::NOENT], PinnedLink::from_pin(&pins.link).map_err(LoadError::Link))?;
    if link.is_none() || !is_there(&pins.map)? {
        // One without the other counts nothing.
        remove_file(&pins.link)?;
        remove_file(&pins.map)?;
        return Ok(None);
    }
    check_shape(&pins.map)?;
    Ok(Some(Map::from_map_data(MapData::from_pin(&pins.map)?)?))
}

fn check_shape(path: &Path) -> Result<(), LoadError> {
    let info = MapInfo::from_pin(path)?;
    let fits = info.key_size() as usize == size_of::<DropKey>()
        && info.value_size() as usize == size_of::<DropCounts>();
    if fits { Ok(()) } else { Err(LoadError::OtherShape { path: path.to_owned() }) }
}

fn load(layout: &Layout, reasons: &Reasons, pins: Option<&DropPins>) -> Result<(Ebpf, Map), LoadError> {
    let mut loader = EbpfLoader::new();
    loader
        .override_global(GLOBAL_LAYOUT, layout, true)
        .override_global(drop_names::GLOBAL_REASONS, reasons, true)
        .map_max_entries(drop_names::MAP_DROPS, MAX_TAPS);
    if let Some(pins) = pins {
        loader.map_pin_path(drop_names::MAP_DROPS, &pins.map);
    }
    let mut ebpf = loader.load(OBJECT)?;
    let map = ebpf.take_map(drop_names::MAP_DROPS);
    let map = map.ok_or(LoadError::Missing { kind: "map", name: drop_names::MAP_DROPS })?;
    Ok((ebpf, map))
}

fn attach(ebpf: &mut Ebpf, pins: Option<&DropPins>) -> Result<(), LoadError> {
    let program = ebpf.program_mut(drop_names::PROGRAM);
    let program = program.ok_or(LoadError::Missing { kind: "program", name: drop_names::PROGRAM })?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(drop_names::TRACEPOINT, &Btf::from_sys_fs()?)?;
    let link = program.attach()?;
    if let Some(pins) = pins {
        let link: FdLink = program.take_link(link)?.into();
        link.pin(&pins.link)?;
    }
    Ok(())
}
