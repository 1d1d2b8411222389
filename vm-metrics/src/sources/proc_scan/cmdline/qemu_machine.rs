//! QEMU's machine: its type, its vCPUs and its memory, by the options that shape it.

use std::collections::HashMap;

use super::VmArgs;
use super::qemu_net::with_nics;
use super::qemu_options::{Keys, get, pairs, values};
use super::size::{number, size};

const MIB: u64 = 1 << 20;

/// QEMU rounds memory up to this.
const GRANULE: u64 = 8 << 10;

/// The levels of `-smp` under which the CPUs lie; a level that is not given counts once.
const TOPOLOGY: &[&str] = &["drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"];

/// Types that are no VM: `none` has neither devices nor CPUs, and answers what QEMU can do; `x-remote` runs a device of
/// another VM.
const NO_VMS: &[&str] = &["none", "x-remote"];

/// The defaults of a machine without `-smp` and `-m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Defaults {
    vcpus: u32,
    memory_bytes: u64,
}

const PC: Defaults = Defaults { vcpus: 1, memory_bytes: 128 * MIB };

/// The options of the machine, in order. `-smp` and `-m` are short for keys of `-machine`.
#[derive(Debug)]
pub struct Machine<'o> {
    keys: Keys,
    options: &'o [(&'o str, &'o str)],
    defaults: Option<Defaults>,
}

impl<'o> Machine<'o> {
    /// `architecture` is the guest's.
    pub fn new(options: &'o [(&'o str, &'o str)], architecture: &str) -> Self {
        let mut keys = Keys::new();
        // They override the memory of `-machine` in any order.
        let mut memory = Keys::new();
        for (option, value) in options {
            let (to, prefix, first_key) = match *option {
                "machine" | "M" => (&mut keys, "", "type"),
                "smp" => (&mut keys, "smp.", "cpus"),
                "m" => (&mut memory, "memory.", "size"),
                _ => continue,
            };
            for (key, mut value) in pairs(value, first_key) {
                // QEMU does the same to `-m 512`.
                if *option == "m" && key == "size" && value.ends_with(|last: char| last.is_ascii_digit()) {
                    value.push('M');
                }
                to.push((format!("{prefix}{key}"), value));
            }
        }
        keys.extend(memory);
        let defaults = defaults(architecture, get(&keys, "type"));
        Self { keys, options, defaults }
    }

    /// Where no more than these options is known to count.
    pub fn without_defaults(options: &'o [(&'o str, &'o str)]) -> Self {
        Self { defaults: None, ..Self::new(options, "") }
    }

    /// The VM of these options, which may be more than those of the machine.
    pub fn vm(&self, options: &[(&str, &str)]) -> VmArgs {
        VmArgs {
            vcpus: self.vcpus(),
            max_vcpus: self.max_vcpus(),
            memory_bytes: self.memory_bytes(),
            ..with_nics(options)
        }
    }

    pub fn is_vm(&self) -> bool {
        !get(&self.keys, "type").is_some_and(|kind| NO_VMS.contains(&kind))
    }

    /// `cpus`, else `maxcpus`, else the product of the topology; and the CPUs that are devices on the command line.
    fn vcpus(&self) -> Option<u32> {
        let levels = || TOPOLOGY.iter().filter_map(|level| self.smp(level));
        let at_start = match self.smp("cpus").or_else(|| self.smp("maxcpus")) {
            Some(cpus) => cpus?,
            None if levels().next().is_none() => self.defaults?.vcpus,
            None => levels().try_fold(1_u32, |product, level| product.checked_mul(level?))?,
        };
        self.plugged_vcpus().and_then(|plugged| at_start.checked_add(plugged))
    }

    /// How many vCPUs there may be, where some can be plugged in or out.
    fn max_vcpus(&self) -> Option<u32> {
        let (cpus, most) = (self.smp("cpus")??, self.smp("maxcpus")??);
        (most > cpus).then_some(most)
    }

    fn plugged_vcpus(&self) -> Option<u32> {
        let drivers = values(self.options, &["device"], "driver");
        let threads = self.smp("threads").unwrap_or(Some(1));
        let vcpus = |keys: Keys| match get(&keys, "driver") {
            // A core of pSeries has the threads of `-smp`.
            Some(driver) if driver.ends_with("-spapr-cpu-core") => threads,
            Some(driver) if driver.ends_with("-cpu") => Some(1),
            _ => Some(0),
        };
        drivers.map(vcpus).try_fold(0_u32, |sum, vcpus| sum.checked_add(vcpus?))
    }

    /// `None` where it is not given, which 0 asks for; the inner `None` where it is no number.
    fn smp(&self, key: &str) -> Option<Option<u32>> {
        let value = number(get(&self.keys, &format!("smp.{key}"))?);
        (value != Some(0)).then(|| u32::try_from(value?).ok())
    }

    /// What it has at the start: the size that is given, else that of its backend, and the memory modules that are on
    /// the command line. NVDIMMs and virtio-pmem are storage; virtio-mem begins with nothing.
    fn memory_bytes(&self) -> Option<u64> {
        let backends = self.backends();
        let at_start = self.memory_at_start(&backends)?.checked_next_multiple_of(GRANULE)?;
        let devices = values(self.options, &["device"], "driver");
        let mut modules = devices.filter(|keys| get(keys, "driver") == Some("pc-dimm")).peekable();
        let is_set = |(option, value): &(&str, &str)| {
            *option == "set" && value.split('=').next().is_some_and(|key| key.ends_with(".memdev"))
        };
        // Which backend a module has then is not followed.
        if modules.peek().is_some() && self.options.iter().any(is_set) {
            return None;
        }
        modules.try_fold(at_start, |sum, keys| sum.checked_add((*backends.get(get(&keys, "memdev")?)?)?))
    }

    fn memory_at_start(&self, backends: &HashMap<String, Option<u64>>) -> Option<u64> {
        match get(&self.keys, "memory.size").map(size) {
            Some(bytes) if bytes != Some(0) => bytes,
            given => match get(&self.keys, "memory-backend") {
                Some(backend) if given.is_none() => *backends.get(backend)?,
                _ => Some(self.defaults?.memory_bytes),
            },
        }
    }

    /// The sizes of the memory backends by their ids.
    fn backends(&self) -> HashMap<String, Option<u64>> {
        let objects = values(self.options, &["object"], "qom-type");
        let sized = |keys: Keys| Some((get(&keys, "id")?.to_owned(), get(&keys, "size").and_then(size)));
        objects.filter_map(sized).collect()
    }
}

/// `None` for a machine whose sizes only QEMU knows: most boards have the CPUs and memory of the real board.
fn defaults(architecture: &str, kind: Option<&str>) -> Option<Defaults> {
    // Proxmox adds its own version to the name.
    let kind = kind.map(|kind| kind.split('+').next().unwrap_or(kind));
    let is_known = match architecture {
        "x86_64" | "i386" => {
            // Without a type it is a PC.
            let kind = kind.unwrap_or("pc");
            matches!(kind, "pc" | "q35" | "microvm" | "isapc" | "ubuntu" | "ubuntu-q35")
                || kind.starts_with("pc-")
        }
        "aarch64" | "arm" | "riscv64" | "riscv32" => {
            kind.is_some_and(|kind| kind == "virt" || kind.starts_with("virt-"))
        }
        _ => false,
    };
    is_known.then_some(PC)
}

/// The guest's architecture, by the program's name: `qemu-system-aarch64`; `qemu-kvm` is of the host's.
pub fn architecture(program: &str) -> &str {
    let system = program.split_once("-system-").map(|(_, system)| system);
    system.map_or(std::env::consts::ARCH, |system| system.split(['-', '.', ';']).next().unwrap_or(system))
}

#[cfg(test)]
mod tests {
    use super::super::argv;
    use super::super::qemu::parse;
    use super::*;

    #[test]
    fn defaults_are_those_of_known_machines() {
        let sizes = |program: &str, line: &str| {
            let vm = parse(program, &argv(&format!("{program} {line}"))).unwrap();
            (vm.vcpus, vm.memory_bytes)
        };
        for (program, line) in [
            ("qemu-system-x86_64", ""),
            ("qemu-system-i386", "-M microvm,rtc=on"),
            ("qemu-system-x86_64", "-M pc-q35-rhel9.4.0"),
            (".qemu-system-x86_64-wrapped", "-machine type=pc-i440fx-9.0+pve0"),
            ("qemu-system-aarch64", "-M virt-7.2,gic-version=3"),
            ("qemu-system-riscv64", "-M virt"),
        ] {
            assert_eq!(sizes(program, line), (Some(1), Some(PC.memory_bytes)), "{program} {line}");
        }
        for (program, line) in [
            ("qemu-system-aarch64", "-M raspi3b"),
            ("qemu-system-arm", "-M ast2600-evb"),
            ("qemu-system-aarch64", "-M sbsa-ref -m 0"),
            ("qemu-system-aarch64", "-machine accel=hvf"),
            ("qemu-system-loongarch64", "-M virt"),
            ("qemu-system-ppc64", ""),
            ("qemu-system-aarch64", "-M raspi3b -readconfig vm.cfg"),
        ] {
            assert_eq!(sizes(program, line), (None, None), "{program} {line}");
        }
        assert_eq!(sizes("qemu-system-aarch64", "-M sbsa-ref -smp 2 -m 1G"), (Some(2), Some(1 << 30)));
    }
}
