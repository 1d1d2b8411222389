//! Metrics of a VM's process: switches, page faults, threads and open files.

use super::labels::{ID, NAME, VM, text};
use super::vm::{count, each};
use super::{Count, Kind, Metric, otel};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "context_switches_total",
        kind: Kind::Counter,
        unit: "{switch}",
        help: "How often threads of the hypervisor process were given a CPU of the host, voluntary and involuntary switches together, all threads, since the daemon first saw the process.",
        origin: "`/proc/<pid>/task/<tid>/schedstat`",
        labels: VM,
        otel: otel("context_switches").unit("{context_switch}"),
        samples: Count(|view, sink| {
            count(view, sink, |vm| vm.since.cpu_wait, |vm| vm.process.context_switches)
        }),
    },
    Metric {
        name: "page_faults_total",
        kind: Kind::Counter,
        unit: "{fault}",
        help: "How often the hypervisor process touched a page that it could not use at once, all threads; kind is major where storage had to be read, else minor.",
        origin: "`/proc/<pid>/stat`",
        labels: &[ID, NAME, text("kind", "system.paging.fault.type")],
        otel: otel("paging.faults"),
        samples: Count(|view, sink| {
            for vm in view.vms() {
                for (kind, faults) in
                    [("minor", vm.process.minor_page_faults), ("major", vm.process.major_page_faults)]
                {
                    if let Some(faults) = faults {
                        sink(&[&vm.instance_id, &vm.instance_name, kind], faults, vm.since.process);
                    }
                }
            }
        }),
    },
    Metric {
        name: "threads",
        kind: Kind::Amount,
        unit: "{thread}",
        help: "Threads of the hypervisor process.",
        origin: "`/proc/<pid>/stat`",
        labels: VM,
        otel: otel("thread.count"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.threads)),
    },
    Metric {
        name: "open_files",
        kind: Kind::Amount,
        unit: "{file}",
        help: "Files that the hypervisor process has open, sockets and the like among them; not before Linux 6.2.",
        origin: "size of `/proc/<pid>/fd`",
        labels: VM,
        otel: otel("unix.file_descriptor.count").unit("{file_descriptor}"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.open_files)),
    },
];
