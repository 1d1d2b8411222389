//! Metrics of a VM's process: switches, page faults, threads and open files.

use super::labels::{ID, NAME, VM, text};
use super::vm::{count, each};
use super::{Count, Kind, Metric, SeriesGroup, otel};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "context_switches_total",
        group: SeriesGroup::Process,
        kind: Kind::Counter,
        unit: "{switch}",
        help: "Context switches of all threads of the hypervisor process, voluntary and involuntary, since the daemon's first tick with the process.",
        origin: "`/proc/<pid>/task/<tid>/schedstat`",
        labels: VM,
        otel: otel("context_switches").unit("{context_switch}"),
        samples: Count(|view, sink| {
            count(view, sink, |vm| vm.since.cpu_wait, |vm| vm.process.context_switches)
        }),
    },
    Metric {
        name: "page_faults_total",
        group: SeriesGroup::Process,
        kind: Kind::Counter,
        unit: "{fault}",
        help: "Page faults of all threads of the hypervisor process; kind is major with a read from storage, else minor.",
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
        group: SeriesGroup::Process,
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
        group: SeriesGroup::Process,
        kind: Kind::Amount,
        unit: "{file}",
        help: "Open files of the hypervisor process, sockets included; absent before Linux 6.2.",
        origin: "size of `/proc/<pid>/fd`",
        labels: VM,
        otel: otel("unix.file_descriptor.count").unit("{file_descriptor}"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.open_files)),
    },
];
