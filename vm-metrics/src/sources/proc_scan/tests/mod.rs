//! Tests of scans of fixture hosts.

mod children;
pub mod fixture;
mod heirs;
mod identity;
mod kvm;
mod kvm_identity;
mod nics;
mod parts;
mod rules;
mod sizes;
mod state;
mod strangers;

use std::time::Duration;

use self::fixture::{Fake, Fixture, without_capabilities};
use super::*;
use crate::model::{InstanceInfo, Nic};

const START: Duration = Duration::ZERO;
/// Between two calls that belong to the daemon's usual tick.
const TICK: Duration = Duration::from_secs(1);

/// Lists at a time that must find no problem.
fn list(scan: &mut ProcScan, now: Duration) -> Vec<InstanceInfo> {
    let listing = scan.list_at(now).unwrap();
    assert_eq!(listing.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    listing.instances
}

fn ids(vms: &[InstanceInfo]) -> Vec<&str> {
    vms.iter().map(|vm| vm.id.as_str()).collect()
}

fn taps(vm: &InstanceInfo) -> Vec<&str> {
    vm.nics.iter().map(|nic| nic.tap.as_str()).collect()
}

fn problems(scan: &mut ProcScan, now: Duration) -> Vec<String> {
    scan.list_at(now).unwrap().problems.iter().map(ToString::to_string).collect()
}
