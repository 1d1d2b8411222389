//! Time of the programs on a TAP per frame: `cargo bench -p vm-metrics --bench programs`, as root.
//!
//! Compare the ratios; the times are those of this machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints its figures, and panics without them"
)]

use std::fs;
use std::path::Path;

use vm_metrics_testkit::bpf::Program;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::{BROADCAST, Frame};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::tap::{Tap, TapOptions};

/// Each round runs all programs on all frames, so that noise of the machine meets all of them.
const ROUNDS: usize = 15;
const RUNS: u32 = 200_000;

const SPLITS: [&str; 5] =
    ["\"protocols\", \"destination\", \"wire\"", "", "\"protocols\"", "\"destination\"", "\"wire\""];

fn main() {
    let _namespace = NetNs::enter().unwrap();
    let tap = Tap::create_up("bench0", TapOptions::default()).unwrap();
    let frames = frames();
    let head: Vec<String> = frames.iter().map(|(name, _)| format!("{name:>14}")).collect();
    println!("ns per frame beyond an empty program, and their ratio: medians of {ROUNDS} × {RUNS} runs");
    println!("{:44}{}", "splits", head.concat());
    for splits in SPLITS {
        measure(splits, &tap, &frames);
    }
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let frame = Frame::from_guest;
    vec![
        ("IPv4 TCP", frame().tcp4(80)),
        ("IPv4 UDP", frame().udp4(80)),
        ("IPv6 TCP", frame().tcp6(80)),
        ("ARP", frame().to(BROADCAST).arp()),
        ("VLAN IPv4", frame().vlan(7).udp4(80)),
        ("VLAN IPv6", frame().vlan(7).tcp6(80)),
        ("QinQ IPv4", frame().service_vlan(9).vlan(7).udp4(80)),
        ("IPv6 extension", frame().udp6_after_hop_by_hop(80)),
    ]
}

/// Prints a line for each direction.
fn measure(splits: &str, tap: &Tap, frames: &[(&str, Vec<u8>)]) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[sources.proc_scan]\nenabled = false\n[readers.tap_ebpf]\npin = false\nsplits = [{splits}]\n\
         [[sources.static_list.vms]]\nid = \"a\"\ntaps = [\"{}\"]\n",
        tap.name()
    );
    fs::write(&config, text).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
    let daemon = Daemon::start(binary, &["--config", config.to_str().unwrap()]).unwrap();
    daemon.wait_for_ebpf().unwrap();

    let empty = Program::empty().unwrap();
    let names = ["tap_ingress", "tap_egress"];
    let programs = names.map(|name| Program::of_process(daemon.pid(), name).unwrap());
    let time = |program: &Program, frame: &[u8]| {
        let time = program.time_of_runs(frame, tap.ifindex(), RUNS).unwrap();
        time.as_secs_f64() * 1e9 / f64::from(RUNS)
    };
    let mut beyond = names.map(|_| frames.iter().map(|_| Vec::new()).collect::<Vec<_>>());
    let mut nothing = Vec::new();
    for _ in 0..ROUNDS {
        for (at, (_, frame)) in frames.iter().enumerate() {
            let base = time(&empty, frame);
            nothing.push(base);
            for (program, beyond) in programs.iter().zip(&mut beyond) {
                beyond[at].push(time(program, frame) - base);
            }
        }
    }
    let nothing = median(&mut nothing);
    for (name, beyond) in names.iter().zip(beyond) {
        let cell = |mut times: Vec<f64>| {
            let time = median(&mut times);
            format!("{:>14}", format!("{time:.1} ({:.2} ×)", (nothing + time) / nothing))
        };
        let cells: Vec<String> = beyond.into_iter().map(cell).collect();
        println!("{:44}{}", format!("{name} [{splits}]").replace('"', ""), cells.concat());
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
