//! Metrics of what the kernel counts of a VM's process beside time and memory.

use super::vm::{VM, as_f64, count, each};
use super::{Kind, Metric};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "context_switches_total",
        kind: Kind::Counter,
        help: "How often threads of the hypervisor process were given a CPU of the host, voluntary and involuntary switches together, all threads, since the daemon first saw the process.",
        origin: "`/proc/<pid>/task/<tid>/schedstat`",
        labels: VM,
        samples: |snapshot, push| {
            count(snapshot, push, |vm| vm.since.cpu_wait, |vm| vm.process.context_switches.map(as_f64))
        },
    },
    Metric {
        name: "page_faults_total",
        kind: Kind::Counter,
        help: "How often the hypervisor process touched a page that it could not use at once, all threads; kind is major where storage had to be read, else minor.",
        origin: "`/proc/<pid>/stat`",
        labels: &["instance_id", "instance_name", "kind"],
        samples: |snapshot, push| {
            for vm in snapshot.vms() {
                for (kind, faults) in
                    [("minor", vm.process.minor_page_faults), ("major", vm.process.major_page_faults)]
                {
                    if let Some(faults) = faults {
                        push(&[&vm.instance_id, &vm.instance_name, kind], as_f64(faults), vm.since.process);
                    }
                }
            }
        },
    },
    Metric {
        name: "threads",
        kind: Kind::Gauge,
        help: "Threads of the hypervisor process.",
        origin: "`/proc/<pid>/stat`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.threads.map(as_f64)),
    },
    Metric {
        name: "open_files",
        kind: Kind::Gauge,
        help: "Files that the hypervisor process has open, sockets and the like among them; not before Linux 6.2.",
        origin: "size of `/proc/<pid>/fd`",
        labels: VM,
        samples: |snapshot, push| each(snapshot, push, |vm| vm.process.open_files.map(as_f64)),
    },
];
