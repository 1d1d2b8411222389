//! Finds a daemon's programs and maps, and runs them by `BPF_PROG_TEST_RUN`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aya::TestRunOptions;
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, SchedClassifier, TestRun, loaded_programs};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use tempfile::TempDir;
use vm_metrics_common::{Counters, TABLE_SIZE, TableEntry, names};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::VNET_HEADER;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};

/// `TCX_NEXT`, which equals `TC_ACT_UNSPEC`: continue with the next program.
pub const CONTINUE: i32 = -1;

/// Size of `struct __sk_buff` up to the last field that this test sets.
const CONTEXT: usize = 184;
const CONTEXT_IFINDEX: usize = 40;
const CONTEXT_GSO_SIZE: usize = 176;

#[derive(Clone, Copy)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A daemon, its TAP, and its objects in the kernel, in drop order.
pub struct Bench {
    pub daemon: Daemon,
    ingress: SchedClassifier,
    egress: SchedClassifier,
    counters: Array<MapData, Counters>,
    entry: u32,
    host: PacketSocket,
    pub tap: Tap,
    _dir: TempDir,
    _namespace: NetNs,
}

impl Bench {
    /// Pins the calling thread to its CPU, so that one entry of the counter map has all frames.
    pub fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        // No other device of the namespace can have this index.
        let options = TapOptions { vnet_hdr: true, ifindex: 4711, ..TapOptions::default() };
        let tap = Tap::create_up("vmt0", options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let text = "[sources.proc_scan]\nenabled = false\n[readers.tap_ebpf]\npin = false\n\
                    [[sources.static_list.vms]]\nid = \"a\"\ntaps = [\"vmt0\"]\n";
        fs::write(&config, text).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
        let daemon = Daemon::start(binary, &["--config", config.to_str().unwrap()]).unwrap();
        daemon.wait_for_ebpf().unwrap();

        let programs = ids(daemon.pid(), "prog_id:");
        let cpu = stay_on_this_cpu();
        let table: Array<_, TableEntry> = map(&daemon, names::MAP_TABLE);
        let counters = map(&daemon, names::MAP_COUNTERS);
        let row = table.get(&(tap.ifindex() % TABLE_SIZE), 0).unwrap();
        assert_eq!(row.ifindex, tap.ifindex());
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
        Self {
            ingress: program(&programs, names::PROGRAM_INGRESS),
            egress: program(&programs, names::PROGRAM_EGRESS),
            counters,
            host: PacketSocket::bind(tap.name()).unwrap(),
            entry: row.slot * cpus + cpu,
            daemon,
            tap,
            _dir: dir,
            _namespace: namespace,
        }
    }

    /// Returns the programs' counts on this CPU.
    pub fn counters(&self) -> Counters {
        self.counters.get(&self.entry, 0).unwrap()
    }

    /// Runs the program and returns its result. `None` when the kernel rejects the frame, because it is empty or too
    /// short for its IP header.
    pub fn run(&self, direction: Direction, frame: &[u8], gso_size: u16) -> Option<i32> {
        let mut context = [0; CONTEXT];
        context[CONTEXT_IFINDEX..][..4].copy_from_slice(&self.tap.ifindex().to_ne_bytes());
        context[CONTEXT_GSO_SIZE..][..4].copy_from_slice(&u32::from(gso_size).to_ne_bytes());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        let program = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        match program.test_run(options) {
            Ok(result) => Some(result.return_value.cast_signed()),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::InvalidInput => {
                None
            }
            Err(error) => panic!("{} bytes, GSO {gso_size}: {error:?}", frame.len()),
        }
    }

    /// Sends the frame through the device, like any frame.
    pub fn carry(&self, direction: Direction, frame: &[u8]) {
        match direction {
            Direction::Ingress => self.tap.write_frame(&[&[0; VNET_HEADER], frame].concat()).unwrap(),
            Direction::Egress => {
                self.host.send(frame).unwrap();
                self.tap.read_frame(&mut [0; 8192]).unwrap().unwrap();
            }
        }
    }
}

fn stay_on_this_cpu() -> u32 {
    let cpu = sched_getcpu();
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).unwrap();
    u32::try_from(cpu).unwrap()
}

/// Returns ids from the fdinfo of the process's descriptors.
fn ids(pid: u32, line: &str) -> HashSet<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    texts.filter_map(|text| text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())).collect()
}

fn program(ids: &HashSet<u32>, name: &'static str) -> SchedClassifier {
    // Foreign programs come and go meanwhile.
    let ours = loaded_programs()
        .flatten()
        .filter(|program| ids.contains(&program.id()) && program.name_as_str() == Some(name));
    let mut ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), 1, "{name} among {ids:?}");
    SchedClassifier::from_program_info(ours.remove(0), Cow::Borrowed(name)).unwrap()
}

fn map<V: aya::Pod>(daemon: &Daemon, name: &str) -> Array<MapData, V> {
    let maps = ids(daemon.pid(), "map_id:").into_iter().map(|id| MapData::from_id(id).unwrap());
    let mut named: Vec<_> = maps.filter(|map| map.info().unwrap().name_as_str() == Some(name)).collect();
    assert_eq!(named.len(), 1, "{name}");
    Array::try_from(aya::maps::Map::Array(named.remove(0))).unwrap()
}
