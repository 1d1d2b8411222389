//! No id and no NIC is there twice.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

use super::Vm;
use crate::model::{Nic, is_device_name};

/// The ids that were given at the last merge, by the id that the sources know, the process, and the source that says so.
#[derive(Debug, Default)]
pub struct GivenIds(HashMap<(String, u32, usize), String>);

/// The source and the text of each problem. Ids that nobody shares stay as they are.
pub fn make_ids_unique(vms: &mut [Vm], given: &mut GivenIds) -> Vec<(usize, String)> {
    let before = mem::take(&mut given.0);
    let key = |vm: &Vm| Some((vm.info.id.clone(), vm.info.hypervisor_pid?, vm.source));
    let kept: Vec<Option<&String>> = vms.iter().map(|vm| key(vm).and_then(|key| before.get(&key))).collect();
    let mut taken: HashSet<String> = kept.iter().copied().flatten().cloned().collect();
    let wanted: HashSet<String> = vms.iter().map(|vm| vm.info.id.clone()).collect();
    let mut problems = Vec::new();
    for (at, (vm, kept)) in vms.iter_mut().zip(kept).enumerate() {
        let key = key(vm);
        let (source, vm) = (vm.source, &mut vm.info);
        let id = match kept {
            Some(kept) => kept.clone(),
            None if taken.insert(vm.id.clone()) => vm.id.clone(),
            None => {
                // Without a process, its place must tell it apart.
                let suffix = vm.hypervisor_pid.map_or_else(|| format!("-#{at}"), |pid| format!("-{pid}"));
                let mut id = format!("{}{suffix}", vm.id);
                while wanted.contains(&id) || !taken.insert(id.clone()) {
                    id.push_str(&suffix);
                }
                id
            }
        };
        given.0.extend(key.map(|key| (key, id.clone())));
        if id != vm.id {
            problems.push((source, format!("two VMs with the id {:?}: one is {id:?} here", vm.id)));
            vm.id = id;
        }
    }
    problems
}

/// The source and the text of each problem.
pub fn check_nics(vms: &mut [Vm]) -> Vec<(usize, String)> {
    let mut holders: HashMap<Nic, String> = HashMap::new();
    let mut problems = Vec::new();
    for Vm { info: vm, source } in vms {
        for Nic { tap, .. } in vm.nics.iter().filter(|nic| !is_device_name(&nic.tap)) {
            problems
                .push((*source, format!("{tap:?} of {:?} cannot be the name of a network device", vm.id)));
        }
        vm.nics.retain(|nic| match holders.entry(nic.clone()) {
            Entry::Vacant(free) => {
                free.insert(vm.id.clone());
                true
            }
            Entry::Occupied(taken) => {
                let (tap, holder) = (&nic.tap, taken.get());
                problems
                    .push((*source, format!("{tap:?} of {:?} left out: it is of {holder:?} already", vm.id)));
                false
            }
        });
    }
    problems
}
