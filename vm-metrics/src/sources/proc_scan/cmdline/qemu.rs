//! QEMU, in the rules of QEMU 6.2 and later. What `-readconfig` and `-set` give is not read: it is not known
//! then.

use super::VmArgs;
use super::qemu_identity::identity;
use super::qemu_net::net;
use super::qemu_options::{options, pairs};
use super::size::{number, size};

const MIB: u64 = 1 << 20;

/// What QEMU takes without `-m`. A few machines (pSeries and others) have another default, which only QEMU
/// knows.
const DEFAULT_MEMORY: u64 = 128 * MIB;

/// The levels of `-smp` under which the CPUs lie; a level that is not given counts once.
const TOPOLOGY: &[&str] = &["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"];

/// Options that print a list and leave when their value asks for `help`.
const LISTS: &[&str] = &[
    "M", "accel", "audio", "audiodev", "chardev", "cpu", "d", "device", "display", "drive", "machine",
    "netdev", "nic", "object", "soundhw", "tpmdev", "trace", "vga", "watchdog",
];

pub fn parse(argv: &[String]) -> Option<VmArgs> {
    let options = options(argv);
    if options.iter().any(|(option, value)| prints_and_leaves(option, value)) {
        return None;
    }
    let machine = machine(&options);
    // Without devices and CPUs: libvirt and others start it to ask QEMU what it can do.
    if last(&machine, "type") == Some("none") {
        return None;
    }
    let complete = !options.iter().any(|(option, _)| matches!(*option, "readconfig" | "set"));
    let net = net(&options);
    let args = VmArgs {
        vcpus: vcpus(&machine, complete),
        memory_bytes: memory(&machine, complete),
        taps: net.taps,
        uncounted: net.uncounted,
        daemonizes: options.iter().any(|(option, _)| *option == "daemonize"),
        ..VmArgs::default()
    };
    Some(args.with_identity(&identity(&options)))
}

fn prints_and_leaves(option: &str, value: &str) -> bool {
    let asks_for_help = |value: &str| value.split(',').any(|key| matches!(key, "help" | "?"));
    matches!(option, "version" | "help" | "h" | "audio-help")
        || LISTS.contains(&option) && asks_for_help(value)
}

/// All that shapes the machine, in order. `-smp` and `-m` are short for keys of `-machine`.
fn machine(options: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut machine = Vec::new();
    for (option, value) in options {
        let (prefix, first_key) = match *option {
            "machine" | "M" => ("", "type"),
            "smp" => ("smp.", "cpus"),
            "m" => ("memory.", "size"),
            _ => continue,
        };
        for (key, mut value) in pairs(value, first_key) {
            // QEMU does the same to `-m 512`.
            if *option == "m" && key == "size" && value.ends_with(|last: char| last.is_ascii_digit()) {
                value.push('M');
            }
            machine.push((format!("{prefix}{key}"), value));
        }
    }
    machine
}

/// Of a key that is given twice, the last counts.
fn last<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// `cpus`, else `maxcpus`, else the product of the topology.
fn vcpus(machine: &[(String, String)], complete: bool) -> Option<u32> {
    let given = |key: &str| last(machine, &format!("smp.{key}"));
    if let Some(cpus) = given("cpus").or_else(|| given("maxcpus")) {
        return positive(cpus);
    }
    let levels: Vec<_> = TOPOLOGY.iter().filter_map(|level| given(level)).collect();
    if levels.is_empty() && !complete {
        return None;
    }
    levels.into_iter().try_fold(1_u32, |product, level| product.checked_mul(positive(level)?))
}

fn positive(text: &str) -> Option<u32> {
    number(text).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

fn memory(machine: &[(String, String)], complete: bool) -> Option<u64> {
    match last(machine, "memory.size") {
        Some(text) => match size(text, 1)? {
            // "-m 0" asks for the default.
            0 => Some(DEFAULT_MEMORY),
            bytes => Some(bytes),
        },
        // The backend is an object of its own, with its own size.
        None if last(machine, "memory-backend").is_some() => None,
        None => complete.then_some(DEFAULT_MEMORY),
    }
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
