//! QEMU, in the rules of QEMU 6.2 and later, and the Android emulator.

use super::VmArgs;
use super::qemu_config::{READ_CONFIG, config_file};
use super::qemu_identity::identity;
use super::qemu_machine::{Machine, architecture};
use super::qemu_net::with_nics;
use super::qemu_options::options;
use super::size::number;

/// Options that print a list and leave when their value asks for `help`.
const LISTS: &[&str] = &[
    "M", "accel", "audio", "audiodev", "chardev", "cpu", "d", "device", "display", "drive", "machine",
    "netdev", "nic", "object", "soundhw", "tpmdev", "trace", "vga", "watchdog",
];

/// Xen's own domain, whose QEMU serves disks and is no VM's.
const XEN_HOST: &str = "0";

/// `program` is the file name of the executable.
pub fn parse(program: &str, argv: &[String]) -> Option<VmArgs> {
    let options = options(argv);
    if options.iter().any(|(option, value)| prints_and_leaves(option, value)) {
        return None;
    }
    Some(VmArgs {
        identity: identity(&options),
        daemonizes: options.iter().any(|(option, _)| *option == "daemonize"),
        ..sized(program, argv, &options)?
    })
}

/// The VM without its names. `None`: it is no VM.
fn sized(program: &str, argv: &[String], options: &[(&str, &str)]) -> Option<VmArgs> {
    let machine = Machine::new(options, architecture(program));
    if !machine.is_vm() {
        return None;
    }
    let xen_domain = options.iter().rfind(|(option, _)| *option == "xen-domid");
    match xen_domain {
        Some((_, XEN_HOST)) => None,
        // Xen gives the guest its CPUs and memory; QEMU only has devices for it.
        Some(_) => Some(VmArgs { is_xen: true, ..with_nics(options) }),
        None if is_android(argv, options) => Some(android(options)),
        None => Some(match options.iter().rposition(|(option, _)| *option == READ_CONFIG) {
            None => machine.vm(options),
            // The file may override earlier options.
            Some(at) => VmArgs {
                config_file: config_file(program, options),
                ..Machine::without_defaults(&options[at..]).vm(options)
            },
        }),
    }
}

/// Whether the command line is the Android emulator's, which names its device with `-avd NAME` or `@NAME`.
fn is_android(argv: &[String], options: &[(&str, &str)]) -> bool {
    argv.get(1).is_some_and(|first| first.starts_with('@'))
        || options.iter().any(|(option, _)| *option == "avd")
}

/// Sizes that are given; those of the device's own configuration are not known.
fn android(options: &[(&str, &str)]) -> VmArgs {
    let given = |name: &str| {
        let value = options.iter().rfind(|(option, _)| *option == name).map(|(_, value)| number(value));
        value.flatten().filter(|value| *value > 0)
    };
    VmArgs {
        vcpus: given("cores").and_then(|cores| u32::try_from(cores).ok()),
        memory_bytes: given("memory").and_then(|mebibytes| mebibytes.checked_mul(1 << 20)),
        ..with_nics(options)
    }
}

fn prints_and_leaves(option: &str, value: &str) -> bool {
    let asks_for_help = |value: &str| value.split(',').any(|key| matches!(key, "help" | "?"));
    matches!(option, "version" | "help" | "h" | "audio-help")
        || LISTS.contains(&option) && asks_for_help(value)
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
