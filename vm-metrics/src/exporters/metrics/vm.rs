//! Metrics of a VM as a whole.

use super::{Kind, Metric, Push, Shown, Since};
use crate::model::{VmState, VmStats};

pub(super) const VM: &[&str] = &["instance_id", "instance_name"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "info",
        kind: Kind::Gauge,
        help: "Always 1; what is known of the VM is in the labels.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "hypervisor", "pid", "project", "namespace", "pod_uid"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                let pid = vm.hypervisor_pid.map(|pid| pid.to_string()).unwrap_or_default();
                let [project, namespace, pod] = [&vm.project, &vm.namespace, &vm.pod_uid]
                    .map(|label| label.as_deref().unwrap_or_default());
                let (id, name, hypervisor) = (&vm.instance_id, &vm.instance_name, vm.hypervisor.as_str());
                push(&[id, name, hypervisor, &pid, project, namespace, pod], 1.0, None);
            }
        },
    },
    Metric {
        name: "tag_info",
        kind: Kind::Gauge,
        help: "Always 1; a tag that users of the orchestrator gave the VM, of those that the configuration names.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "tag", "value"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                for (tag, value) in &vm.tags {
                    push(&[&vm.instance_id, &vm.instance_name, tag, value], 1.0, None);
                }
            }
        },
    },
    Metric {
        name: "restart_attempts",
        kind: Kind::Gauge,
        help: "How often the orchestrator tried to start the VM again since it last ran well.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.restart_attempts.map(as_f64)),
    },
    Metric {
        name: "network_limit_bytes_per_second",
        kind: Kind::Gauge,
        help: "What the orchestrator lets the VM receive (direction rx) and send (tx), in bytes per second.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "direction"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                let limits = [
                    ("rx", vm.network_limit_rx_bytes_per_second),
                    ("tx", vm.network_limit_tx_bytes_per_second),
                ];
                for (direction, limit) in limits {
                    if let Some(limit) = limit {
                        push(&[&vm.instance_id, &vm.instance_name, direction], as_f64(limit), None);
                    }
                }
            }
        },
    },
    Metric {
        name: "running",
        kind: Kind::Gauge,
        help: "1 while the VM is there, 0 while the last numbers of one that is gone are shown.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| {
            for vm in snapshot.vms_also_ended() {
                push(&[&vm.instance_id, &vm.instance_name], if vm.running { 1.0 } else { 0.0 }, None);
            }
        },
    },
    Metric {
        name: "state",
        kind: Kind::Gauge,
        help: "1 for the state that the vCPUs are in, 0 for the others: not-started, running, paused, stopped. As of the last answer of the VMM, which is asked every 30 seconds.",
        origin: "sources",
        labels: &["instance_id", "instance_name", "state"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                for state in VmState::ALL.into_iter().filter(|_| vm.state.is_some()) {
                    let is = if vm.state == Some(state) { 1.0 } else { 0.0 };
                    push(&[&vm.instance_id, &vm.instance_name, state.as_str()], is, None);
                }
            }
        },
    },
    Metric {
        name: "start_time_seconds",
        kind: Kind::Gauge,
        help: "When the hypervisor process started, in seconds of Unix time: from then on its CPU time counts.",
        origin: "`/proc/<pid>/stat`, `/proc/stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.start_time),
    },
    Metric {
        name: "cpu_seconds_total",
        kind: Kind::Counter,
        help: "CPU time of the hypervisor process in seconds, user and system, all threads.",
        origin: "CPU clock of the process, else `/proc/<pid>/stat`",
        labels: VM,
        samples: |snapshot, push| count(snapshot, push, |vm| vm.since.process, VmStats::cpu_seconds),
    },
    Metric {
        name: "cpu_wait_seconds_total",
        kind: Kind::Counter,
        help: "Time that threads of the hypervisor process were ready to run and had no CPU of the host, in seconds, all threads, since the daemon first saw the process.",
        origin: "`/proc/<pid>/task/<tid>/schedstat`",
        labels: VM,
        samples: |snapshot, push| {
            count(snapshot, push, |vm| vm.since.cpu_wait, |vm| vm.process.cpu_wait_usec.map(seconds))
        },
    },
    Metric {
        name: "allocated_vcpus",
        kind: Kind::Gauge,
        help: "vCPUs the VM was given.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.allocated_vcpus.map(f64::from)),
    },
    Metric {
        name: "memory_rss_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process in bytes, without hugetlb pages.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_rss_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_vms_bytes",
        kind: Kind::Gauge,
        help: "Virtual memory of the hypervisor process in bytes.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_vms_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_anon_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process that no file is behind, in bytes.",
        origin: "`RssAnon` of `/proc/<pid>/status`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_anon_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_file_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process that is mapped from files, in bytes.",
        origin: "`RssFile` of `/proc/<pid>/status`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_file_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_shmem_bytes",
        kind: Kind::Gauge,
        help: "Resident shared memory of the hypervisor process in bytes: memfd, tmpfs, SysV.",
        origin: "`RssShmem` of `/proc/<pid>/status`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_shmem_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_hugetlb_bytes",
        kind: Kind::Gauge,
        help: "Memory of the hypervisor process from hugetlbfs in bytes; not in the resident memory.",
        origin: "`HugetlbPages` of `/proc/<pid>/status`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_hugetlb_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_swap_bytes",
        kind: Kind::Gauge,
        help: "Memory of the hypervisor process that is swapped out, in bytes.",
        origin: "`VmSwap` of `/proc/<pid>/status`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_swap_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_pss_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process in bytes, of which what n processes share counts 1/n; where proc_smaps is switched on, and as old as its interval.",
        origin: "`Pss` of `/proc/<pid>/smaps_rollup`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_pss_bytes.map(as_f64)),
    },
    Metric {
        name: "memory_private_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the hypervisor process in bytes that no other process has; where proc_smaps is switched on, and as old as its interval.",
        origin: "`Private_Clean` and `Private_Dirty` of `/proc/<pid>/smaps_rollup`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.memory_private_bytes.map(as_f64)),
    },
    Metric {
        name: "allocated_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory the VM was given, in bytes.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.allocated_memory_bytes.map(as_f64)),
    },
    Metric {
        name: "actual_memory_bytes",
        kind: Kind::Gauge,
        help: "Memory that the VM's balloon leaves it of what it was given, in bytes; not for a VM without a balloon.",
        origin: "sources",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.actual_memory_bytes.map(as_f64)),
    },
    Metric {
        name: "disk_read_bytes_total",
        kind: Kind::Counter,
        help: "Bytes that the hypervisor process had storage read; what the page cache had is not in it.",
        origin: "`read_bytes` of `/proc/<pid>/io`",
        labels: VM,
        samples: |snapshot, push| {
            count(snapshot, push, |vm| vm.since.process, |vm| vm.process.disk_read_bytes.map(as_f64))
        },
    },
    Metric {
        name: "disk_write_bytes_total",
        kind: Kind::Counter,
        help: "Bytes that the hypervisor process had storage write, counted when a page becomes dirty.",
        origin: "`write_bytes` of `/proc/<pid>/io`",
        labels: VM,
        samples: |snapshot, push| {
            count(snapshot, push, |vm| vm.since.process, |vm| vm.process.disk_write_bytes.map(as_f64))
        },
    },
    Metric {
        name: "disk_cancelled_write_bytes_total",
        kind: Kind::Counter,
        help: "Of the bytes written, those thrown away before they reached storage: the file was deleted or cut.",
        origin: "`cancelled_write_bytes` of `/proc/<pid>/io`",
        labels: VM,
        samples: |snapshot, push| {
            count(
                snapshot,
                push,
                |vm| vm.since.process,
                |vm| vm.process.disk_cancelled_write_bytes.map(as_f64),
            )
        },
    },
];

/// A gauge.
pub(super) fn each(snapshot: &Shown<'_>, push: Push<'_>, value: impl Fn(&VmStats) -> Option<f64>) {
    count(snapshot, push, |_| None, value);
}

pub(super) fn count(
    snapshot: &Shown<'_>,
    push: Push<'_>,
    since: impl Fn(&VmStats) -> Since,
    value: impl Fn(&VmStats) -> Option<f64>,
) {
    for vm in snapshot.vms() {
        if let Some(value) = value(vm) {
            push(&[&vm.instance_id, &vm.instance_name], value, since(vm));
        }
    }
}

pub(super) fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}

pub(super) fn as_f64(value: u64) -> f64 {
    value as f64
}
