//! Makes the VM of a list of QEMU options.

use super::VmArgs;
use super::qemu_machine::Machine;
use super::qemu_net::net;

/// The VM of these options, which may include those of a file.
pub fn described(machine: &Machine, options: &[(&str, &str)]) -> VmArgs {
    VmArgs {
        vcpus: machine.vcpus(),
        max_vcpus: machine.max_vcpus(),
        memory_bytes: machine.memory_bytes(),
        ..with_nics(options)
    }
}

/// The NICs alone.
pub fn with_nics(options: &[(&str, &str)]) -> VmArgs {
    let net = net(options);
    VmArgs { taps: net.taps, unmonitored: net.unmonitored, ..VmArgs::default() }
}
