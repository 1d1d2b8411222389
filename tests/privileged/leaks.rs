//! Ten thousand TAPs under successive daemons leak nothing.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use vm_metrics::Manager;
use vm_metrics::{AttachMode, NicStats};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::heap;
use crate::isolation::{figures, isolated};
use crate::lab::{manager_with, nics, ways};

/// TAPs in one wave. The kernel needs some 10 ms to detach a TCX link.
const TCX: usize = 10;
const CLSACT: usize = 90;

/// Waves under one daemon: 1000 rounds by TCX and 9000 by clsact.
const WAVES: usize = 10;

/// Reduces the test to one wave of ten TAPs, for machines that are ten times slower.
const SHORT: &str = "TESTKIT_SHORT_ROUNDS";

/// Each daemon takes over from the one before. The first is the warm-up.
const DAEMONS: usize = 10;

/// Permitted heap growth over all daemons: two bytes per round would exceed it.
const GROWTH: usize = 16 << 10;

#[test]
fn ten_thousand_rounds_leak_nothing() {
    isolated("leaks::ten_thousand_rounds_leak_nothing", || {
        let short = env::var_os(SHORT).is_some();
        for way in ways() {
            let at_once = if short || way == "tcx" { TCX } else { CLSACT };
            rounds_of(way, if short { 1 } else { WAVES }, at_once);
        }
    });
}

fn rounds_of(way: &str, waves: usize, at_once: usize) {
    let _namespace = NetNs::enter().unwrap();
    let names: Vec<String> = (0..at_once).map(|index| format!("vmt{index}")).collect();
    let mut objects = Objects::default();
    let mut first = None;
    for daemon in 0..=DAEMONS {
        let mut manager = start(way, &names);
        let pins = pins();
        for _ in 0..waves {
            let taps = come(way, &mut manager, &names);
            objects.note();
            send(&mut manager, &taps, 1);
            go(taps);
            assert!(nics(&mut manager).iter().all(|nic| nic.ifindex.is_none()));
            assert_eq!(self::pins(), pins, "{way}: of TAPs that are gone");
        }
        let taps = come(way, &mut manager, &names);
        send(&mut manager, &taps, 1);
        drop(manager);
        let mut manager = start(way, &names);
        send(&mut manager, &taps, 2);
        go(taps);
        manager.collect();
        objects.note();
        let now = Resources::now(&objects);
        match &first {
            None => first = Some(now),
            Some(first) => now.compare(first, &format!("{way}, daemon {daemon}")),
        }
    }
    run(Command::new(env!("CARGO_BIN_EXE_vm-metrics")).args(["detach", "--all"]));
    wait_until(SOON, "the end of all programs, maps and links", || Ok(objects.are_gone().then_some(())))
        .unwrap();
    let rounds = DAEMONS * waves * at_once;
    figures(&format!("{rounds} rounds of attach and detach by {way}: nothing left behind"));
}

fn start(way: &str, names: &[String]) -> Manager {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    manager_with(&names, &format!("retention = \"0s\"\n[readers.tap_ebpf]\nattach = \"{way}\"\n"))
}

/// Makes TAPs with programs attached. A tick attaches only as many as it has time for.
fn come(way: &str, manager: &mut Manager, names: &[String]) -> Vec<Tap> {
    let taps = names.iter().map(|name| Tap::create_up(name, TapOptions::default()).unwrap()).collect();
    let attached = |nic: &NicStats| nic.attach != AttachMode::None;
    wait_until(SOON, "the programs on each TAP", || Ok(nics(manager).iter().all(attached).then_some(())))
        .unwrap_or_else(|error| panic!("{way}: {error}"));
    taps
}

/// Sends one more frame over each TAP.
fn send(manager: &mut Manager, taps: &[Tap], frames: u64) {
    for tap in taps {
        tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    }
    for nic in nics(manager) {
        let counted = (nic.tx.packets, nic.ebpf.map(|ebpf| ebpf.tx.packets));
        assert_eq!(counted, (Some(frames), Some(frames)), "{}", nic.device);
    }
}

/// Drops all at once: the kernel waits some 10 ms for users of devices, independent of their number.
fn go(taps: Vec<Tap>) {
    let mut batch: String = taps.iter().map(|tap| format!("link set dev {} group 7\n", tap.name())).collect();
    batch.push_str("link delete group 7\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, batch).unwrap();
    run(Command::new("ip").arg("-batch").arg(file.path()));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ids of all programs and maps of this process so far. The kernel does not reuse ids.
#[derive(Default)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Objects {
    fn note(&mut self) {
        let now = in_descriptors();
        self.programs.extend(now.programs);
        self.maps.extend(now.maps);
    }

    fn live_programs(&self) -> usize {
        loaded_programs()
            .filter(|info| info.as_ref().is_ok_and(|info| self.programs.contains(&info.id())))
            .count()
    }

    fn live_maps(&self) -> usize {
        loaded_maps().filter(|info| info.as_ref().is_ok_and(|info| self.maps.contains(&info.id()))).count()
    }

    fn live_links(&self) -> usize {
        let ours = |id: u32| self.programs.contains(&id);
        loaded_links().filter(|info| info.as_ref().is_ok_and(|info| ours(info.program_id()))).count()
    }

    fn are_gone(&self) -> bool {
        (self.live_programs(), self.live_maps(), self.live_links()) == (0, 0, 0)
    }
}

/// Returns the objects behind this process's descriptors.
fn in_descriptors() -> Objects {
    let mut objects = Objects::default();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        // The directory's own descriptor is closed by now.
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
        let number =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok());
        objects.programs.extend(number("prog_id:"));
        objects.maps.extend(number("map_id:"));
    }
    objects
}

/// Resources of a process, in user space and in the kernel.
#[derive(Debug, PartialEq)]
struct Resources {
    descriptors: usize,
    programs: usize,
    maps: usize,
    links: usize,
    pins: usize,
    mappings: usize,
    heap: usize,
}

impl Resources {
    fn now(objects: &Objects) -> Self {
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            programs: objects.live_programs(),
            maps: objects.live_maps(),
            links: objects.live_links(),
            pins: pins(),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().matches("bpf-map").count(),
            heap: heap::in_use(),
        }
    }

    fn compare(&self, first: &Self, when: &str) {
        let heap = self.heap.min(first.heap + GROWTH);
        assert_eq!(self, &Self { heap, ..*first }, "{when}");
    }
}

/// Returns the number of files in this namespace's bpffs.
fn pins() -> usize {
    files_below(Path::new("/sys/fs/bpf"))
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}
