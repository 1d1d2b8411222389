//! Runs of eBPF programs by `BPF_PROG_TEST_RUN`, in a loop of the kernel.
//!
//! Besides the programs of a daemon there are two to compare with: one that does nothing, and one that counts in a hash by
//! the index of the device.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::sys::bpf::{self, MapKind};

/// `struct __sk_buff` up to the field `ifindex`.
const CONTEXT: usize = 44;
const CONTEXT_IFINDEX: usize = 40;

/// Counts per device in a hash of the kernel: packets and bytes.
const COUNTS_BYTES: u32 = 16;
const MAX_DEVICES: u32 = 1024;

/// A loaded program; the kernel unloads it after the last descriptor.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    /// Keeps the map of a program for [`Self::hash_by_ifindex`].
    _map: Option<OwnedFd>,
}

impl Program {
    /// Loads a program that passes each frame on.
    pub fn empty() -> Result<Self> {
        let fd = bpf::load_classifier(&[MOVE_MINUS_ONE, EXIT]).context("load an empty program")?;
        Ok(Self { fd, _map: None })
    }

    /// Loads a program that counts packets and bytes of these devices by a lookup in a per-CPU hash.
    pub fn hash_by_ifindex(devices: &[u32]) -> Result<Self> {
        let cpus =
            fs::read_to_string("/sys/devices/system/cpu/possible").context("count the possible CPUs")?;
        let last = cpus.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
        let cpus = last.context("the possible CPUs")? + 1;
        let map =
            bpf::create_map(MapKind::PerCpuHash, 4, COUNTS_BYTES, MAX_DEVICES).context("create a hash")?;
        let zeroes = vec![0; cpus * COUNTS_BYTES as usize];
        for ifindex in devices {
            bpf::update(&map, &ifindex.to_ne_bytes(), &zeroes).context("add a device to a hash")?;
        }
        let fd =
            bpf::load_classifier(&count_in_hash(map.as_raw_fd())).context("load a program with a hash")?;
        Ok(Self { fd, _map: Some(map) })
    }

    /// Finds a program of this name among the descriptors of a process.
    pub fn of_process(pid: u32, name: &str) -> Result<Self> {
        for id in ids(pid)? {
            let fd = bpf::program_by_id(id).with_context(|| format!("open program {id}"))?;
            if bpf::program_name(&fd).with_context(|| format!("name of program {id}"))? == name {
                return Ok(Self { fd, _map: None });
            }
        }
        anyhow::bail!("process {pid} has no program {name}")
    }

    /// Returns the CPU time of so many runs on this frame of a device in the caller's network namespace.
    pub fn time_of_runs(&self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<Duration> {
        let mut context = [0; CONTEXT];
        context[CONTEXT_IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
        let start = thread_cpu_time()?;
        bpf::test_run(&self.fd, frame, &context, repeat).context("BPF_PROG_TEST_RUN")?;
        Ok(thread_cpu_time()? - start)
    }
}

fn thread_cpu_time() -> Result<Duration> {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).context("the CPU time of this thread")
}

/// Returns the ids of programs in the fdinfo of the process.
fn ids(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
    let paths: io::Result<Vec<_>> = files.map(|file| Ok(file?.path())).collect();
    // A file may be closed meanwhile.
    let texts = paths?.into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let id = |text: String| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    let mut ids: Vec<u32> = texts.filter_map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

const MOVE_MINUS_ONE: u64 = instruction(0xb7, 0, 0, 0, -1);
const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// `struct bpf_insn` on a machine with little-endian numbers.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

/// `counts = map[skb->ifindex]; if (counts) { counts->packets += 1; counts->bytes += skb->len; }`
fn count_in_hash(map: i32) -> Vec<u64> {
    const LOAD_32: u8 = 0x61;
    const LOAD_64: u8 = 0x79;
    const STORE_32: u8 = 0x63;
    const STORE_64: u8 = 0x7b;
    const ADD_VALUE: u8 = 0x07;
    const ADD: u8 = 0x0f;
    const MOVE: u8 = 0xbf;
    const LOAD_MAP: u8 = 0x18;
    const CALL: u8 = 0x85;
    const JUMP_IF_ZERO: u8 = 0x15;
    const LOOKUP: i32 = 1;
    const PSEUDO_MAP_FD: u8 = 1;
    vec![
        instruction(MOVE, 6, 1, 0, 0),
        instruction(LOAD_32, 2, 1, 40, 0),
        instruction(STORE_32, 10, 2, -4, 0),
        instruction(MOVE, 2, 10, 0, 0),
        instruction(ADD_VALUE, 2, 0, 0, -4),
        instruction(LOAD_MAP, 1, PSEUDO_MAP_FD, 0, map),
        instruction(0, 0, 0, 0, 0),
        instruction(CALL, 0, 0, 0, LOOKUP),
        instruction(JUMP_IF_ZERO, 0, 0, 7, 0),
        instruction(LOAD_64, 1, 0, 0, 0),
        instruction(ADD_VALUE, 1, 0, 0, 1),
        instruction(STORE_64, 0, 1, 0, 0),
        instruction(LOAD_32, 2, 6, 0, 0),
        instruction(LOAD_64, 1, 0, 8, 0),
        instruction(ADD, 1, 2, 0, 0),
        instruction(STORE_64, 0, 1, 8, 0),
        MOVE_MINUS_ONE,
        EXIT,
    ]
}
