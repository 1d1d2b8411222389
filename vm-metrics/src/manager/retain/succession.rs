//! Ends the series of a terminated VM where another VM takes over its id. From then on the series count from 0.

use std::collections::HashMap;

use super::{Entry, TerminatedVms};
use crate::model::VmStats;

impl TerminatedVms {
    /// Notes when each VM took over the id of a terminated one; `now` is in seconds of Unix time.
    pub(in crate::manager) fn succeed(&mut self, present: &mut [VmStats], now: f64) {
        if self.vms.is_empty() {
            return;
        }
        let running = present.iter_mut().filter(|vm| vm.running);
        let mut running: HashMap<String, &mut VmStats> =
            running.map(|vm| (vm.instance_id.clone(), vm)).collect();
        for Entry { vm: terminated, succeeded, .. } in &mut self.vms {
            let Some(vm) = running.get_mut(&terminated.instance_id) else { continue };
            if is_another(terminated, vm) {
                not_before(*succeeded.get_or_insert(now), vm);
            }
        }
    }
}

fn is_another(terminated: &VmStats, vm: &VmStats) -> bool {
    let has_other_start = vm.start_time.zip(terminated.start_time).is_some_and(|(now, then)| now != then);
    vm.hypervisor_pid != terminated.hypervisor_pid || has_other_start
}

fn not_before(at: f64, vm: &mut VmStats) {
    let of_vcpus = vm.vcpus.iter_mut().map(|vcpu| &mut vcpu.since);
    let all = [&mut vm.since.process, &mut vm.since.cpu_wait].into_iter().chain(of_vcpus);
    all.for_each(|since| *since = since.map(|since| since.max(at)));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::{Tenant, Trust};
    use super::*;
    use crate::model::{VcpuStats, VmSince};

    fn vm(pid: u32) -> VmStats {
        let since = VmSince { process: Some(5.0), cpu_wait: None };
        let vcpus = vec![VcpuStats { since: Some(6.0), ..VcpuStats::default() }];
        let (instance_id, hypervisor_pid) = ("a".to_owned(), Some(pid));
        VmStats { instance_id, hypervisor_pid, running: true, vcpus, since, ..VmStats::default() }
    }

    #[test]
    fn a_successor_counts_from_where_it_took_over() {
        let mut terminated = TerminatedVms::new(Duration::from_secs(10), Trust::default());
        let entry = Entry { since: Instant::now(), tenant: Tenant::Trusted, vm: vm(1), succeeded: None };
        terminated.vms.push(entry);
        for (pid, now, expected) in [(1, 7.0, (5.0, 6.0)), (2, 8.0, (8.0, 8.0)), (2, 9.0, (8.0, 8.0))] {
            let mut present = [vm(pid)];
            terminated.succeed(&mut present, now);
            let [vm] = present;
            assert_eq!((vm.since.process, vm.vcpus[0].since), (Some(expected.0), Some(expected.1)));
            assert_eq!(vm.since.cpu_wait, None, "what is not known is not guessed");
        }
    }
}
