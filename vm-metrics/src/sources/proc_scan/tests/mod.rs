//! Tests of scans of fixture hosts.

mod children;
pub mod fixture;
mod heirs;
mod identity;
mod kvm;
mod kvm_identity;
mod late_answers;
mod nics;
mod parts;
mod rules;
mod sizes;
mod state;
mod strangers;

use std::time::Duration;

use self::fixture::{Fake, Fixture, without_capabilities};
use super::*;
use crate::model::{Hypervisor, InstanceInfo, Nic};

const START: Duration = Duration::ZERO;
/// Between two calls that belong to the daemon's usual tick.
const TICK: Duration = Duration::from_secs(1);

/// Lists at a time that must find no problem.
fn list(scan: &mut ProcScan, now: Duration) -> Vec<InstanceInfo> {
    let listing = scan.list_at(now).unwrap();
    assert_eq!(listing.texts(), [""; 0]);
    listing.instances
}

fn ids(vms: &[InstanceInfo]) -> Vec<&str> {
    vms.iter().map(|vm| vm.id.as_str()).collect()
}

fn taps(vm: &InstanceInfo) -> Vec<&str> {
    vm.nics.iter().map(|nic| nic.tap.as_str()).collect()
}

fn problems(scan: &mut ProcScan, now: Duration) -> Vec<String> {
    scan.list_at(now).unwrap().texts()
}

/// A VM of root, with nothing but its names.
fn vm(id: &str, pid: u32, hypervisor: Hypervisor) -> InstanceInfo {
    InstanceInfo {
        id: id.into(),
        name: id.into(),
        hypervisor,
        hypervisor_pid: Some(pid),
        uid: Some(0),
        ..InstanceInfo::default()
    }
}

fn overuse(listing: &Listing) -> Vec<(Option<u32>, &'static str, u64)> {
    let list = listing.overuse.clone().into_list();
    list.into_iter().map(|over| (over.uid, over.resource, over.count)).collect()
}

/// The first listing in which users have too many VMs. On a busy machine, all are known after some calls only.
fn with_too_many_vms(scan: &mut ProcScan) -> Listing {
    let is_over = |listing: &Listing| overuse(listing).iter().any(|(_, resource, _)| *resource == "vms");
    (0..600).map(|at| scan.list_at(at * TICK).unwrap()).find(is_over).expect("too many VMs")
}
