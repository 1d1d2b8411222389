//! The stand-in VMs, and the daemon's configuration that lists them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};

use vm_metrics_testkit::vm_process::{StandInSpec, Traffic};

use super::TAP_PREFIX;

/// The daemon's default port.
const PORT: u16 = 10464;

/// vCPUs in the configuration, because a stand-in has no guest to ask.
const VCPUS: u32 = 2;
const MEMORY_BYTES: u64 = 256 << 20;

/// Much shorter than the second between two scrapes: else a scrape could see two ticks, and the next none.
const INTERVAL: &str = "100ms";

/// A kind of guest: its traffic, and how much of its memory it has touched.
struct Profile {
    name: &'static str,
    sends: Traffic,
    receives: Traffic,
    touched_bytes: usize,
}

/// The values are far apart, so that mixed-up rows or directions show.
const PROFILES: &[Profile] = &[
    Profile { name: "web", sends: traffic(2000, 1400), receives: traffic(400, 200), touched_bytes: 64 << 20 },
    Profile {
        name: "backup",
        sends: traffic(200, 66),
        receives: traffic(3000, 1514),
        touched_bytes: 32 << 20,
    },
    Profile { name: "idle", sends: traffic(3, 98), receives: traffic(1, 98), touched_bytes: 8 << 20 },
];

const fn traffic(packets_per_second: u32, frame_bytes: usize) -> Traffic {
    Traffic { packets_per_second, frame_bytes }
}

#[derive(Debug)]
pub struct DemoVm {
    pub id: String,
    pub name: String,
    pub stand_in: StandInSpec,
}

impl DemoVm {
    pub fn new(number: u32) -> Self {
        let Profile { name, sends, receives, touched_bytes } = PROFILES[number as usize % PROFILES.len()];
        Self {
            id: format!("demo-{number}"),
            name: format!("{name}-{number}"),
            stand_in: StandInSpec {
                tap: format!("{TAP_PREFIX}{number}"),
                sends,
                receives,
                memory_bytes: touched_bytes,
                threads: Vec::new(),
            },
        }
    }

    pub fn tap(&self) -> &str {
        &self.stand_in.tap
    }
}

/// Renders the configuration of the VMs with the pids of their processes.
pub fn render<'a>(vms: impl IntoIterator<Item = (&'a DemoVm, u32)>) -> String {
    // The demo ignores real VMs of this host and leaves nothing.
    let mut text = format!(
        "interval = \"{INTERVAL}\"\n\n[sources.proc_scan]\nenabled = false\n\n[readers.tap_ebpf]\npin = false\n\n"
    );
    for (vm, pid) in vms {
        let DemoVm { id, name, .. } = vm;
        let tap = vm.tap();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "[[sources.static_list.vms]]\n\
             id = \"{id}\"\nname = \"{name}\"\npid = {pid}\ntaps = [\"{tap}\"]\n\
             vcpus = {VCPUS}\nmemory_bytes = {MEMORY_BYTES}\n"
        );
    }
    text
}

/// Returns the default address, or a free port if another daemon has that one.
pub fn listen_address() -> String {
    let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).is_ok();
    format!("{}:{}", Ipv4Addr::LOCALHOST, if is_free { PORT } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vm_is_listed_with_process_and_tap() {
        let vms = [DemoVm::new(0), DemoVm::new(1)];
        let text = render(vms.iter().zip([41, 42]));
        assert_eq!(text.matches("[[sources.static_list.vms]]").count(), 2);
        assert!(
            text.contains("id = \"demo-1\"\nname = \"backup-1\"\npid = 42\ntaps = [\"vmdemo1\"]\n"),
            "{text}"
        );
    }
}
