//! Remembers the process of each VM, so that a new id counts nothing twice.

use std::collections::HashMap;
use std::time::Instant;

use super::is_forgotten;
use crate::model::VmStats;

#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By pid, those that were seen last.
    known: HashMap<u32, ProcessRecord>,
    /// Of the latest snapshot, by id.
    names: HashMap<String, String>,
}

#[derive(Debug)]
struct ProcessRecord {
    start_time: Option<f64>,
    name: String,
    seen: Instant,
}

impl Processes {
    pub(super) fn update(&mut self, vms: &[VmStats], now: Instant) {
        self.names.clear();
        for vm in vms.iter().filter(|vm| vm.running) {
            if let Some(pid) = vm.hypervisor_pid {
                let name = self.see(pid, vm.start_time, now);
                self.names.insert(vm.instance_id.clone(), name);
            }
        }
        for vm in vms.iter().filter(|vm| !vm.running) {
            if let Some(pid) = vm.hypervisor_pid {
                // Its pid may be used again.
                let known = self.known.get(&pid).filter(|known| known.start_time == vm.start_time);
                let name = known.map_or_else(|| name(pid, vm.start_time), |known| known.name.clone());
                self.names.insert(vm.instance_id.clone(), name);
            }
        }
        self.known.retain(|_, known| !is_forgotten(known.seen, now));
    }

    fn see(&mut self, pid: u32, start_time: Option<f64>, now: Instant) -> String {
        let is_it = |known: &ProcessRecord| known.start_time.zip(start_time).is_none_or(|(a, b)| a == b);
        let before = self.known.remove(&pid).filter(is_it);
        let known = match before {
            Some(known) => ProcessRecord { start_time: known.start_time.or(start_time), seen: now, ..known },
            None => ProcessRecord { start_time, name: name(pid, start_time), seen: now },
        };
        let name = known.name.clone();
        self.known.insert(pid, known);
        name
    }

    /// The name of the process; the id of a VM that has none.
    pub(super) fn name<'n>(&'n self, id: &'n str) -> &'n str {
        self.names.get(id).map_or(id, String::as_str)
    }
}

fn name(pid: u32, start_time: Option<f64>) -> String {
    format!("{pid} {}", start_time.unwrap_or_default())
}
