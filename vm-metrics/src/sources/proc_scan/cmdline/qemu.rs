//! QEMU, in the rules of QEMU 6.2 and later, and the Android emulator.

use super::VmArgs;
use super::qemu_android::{is_android, sizes};
use super::qemu_config::{READ_CONFIG, config_file};
use super::qemu_identity::identity;
use super::qemu_machine::{Machine, architecture};
use super::qemu_options::options;
use super::qemu_vm::{described, with_nics};

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
    let args = VmArgs {
        daemonizes: options.iter().any(|(option, _)| *option == "daemonize"),
        ..sized(program, argv, &options)?
    };
    Some(args.with_identity(&identity(&options)))
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
        None if is_android(argv, options) => Some(sizes(options, with_nics(options))),
        None => Some(match options.iter().rposition(|(option, _)| *option == READ_CONFIG) {
            None => described(&machine, options),
            // The file may override earlier options.
            Some(at) => VmArgs {
                config_file: config_file(program, options),
                ..described(&Machine::without_defaults(&options[at..]), options)
            },
        }),
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
