//! Metrics of the memory and the storage that a VM's process uses.

use super::labels::VM;
use super::vm::{count, each};
use super::{Convention, Count, Kind, Metric, SeriesGroup, otel, shared};

const MEMORY_TYPE: &str = "vm.memory.type";
const RESIDENT: Convention = shared(
    "memory.resident",
    "Resident memory of the hypervisor process by what is behind it; together it is memory.usage.",
);
const DISK_DIRECTION: &str = "disk.io.direction";
const DISK_IO: Convention = shared(
    "disk.io",
    "Bytes that the hypervisor process had storage read or write, without what the page cache had.",
);

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "memory_rss_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident memory of the hypervisor process in bytes, without hugetlb pages.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        otel: otel("memory.usage"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_rss_bytes)),
    },
    Metric {
        name: "memory_vms_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Virtual memory of the hypervisor process in bytes.",
        origin: "`/proc/<pid>/statm`",
        labels: VM,
        otel: otel("memory.virtual"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_vms_bytes)),
    },
    Metric {
        name: "memory_anon_bytes",
        group: SeriesGroup::Memory,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident memory of the hypervisor process without a file, in bytes.",
        origin: "`RssAnon` of `/proc/<pid>/status`",
        labels: VM,
        otel: RESIDENT.with((MEMORY_TYPE, "anon")),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_anon_bytes)),
    },
    Metric {
        name: "memory_file_bytes",
        group: SeriesGroup::Memory,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident memory of the hypervisor process from mapped files, in bytes.",
        origin: "`RssFile` of `/proc/<pid>/status`",
        labels: VM,
        otel: RESIDENT.with((MEMORY_TYPE, "file")),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_file_bytes)),
    },
    Metric {
        name: "memory_shmem_bytes",
        group: SeriesGroup::Memory,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident shared memory of the hypervisor process in bytes: memfd, tmpfs, SysV.",
        origin: "`RssShmem` of `/proc/<pid>/status`",
        labels: VM,
        otel: RESIDENT.with((MEMORY_TYPE, "shmem")),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_shmem_bytes)),
    },
    Metric {
        name: "memory_hugetlb_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Memory of the hypervisor process from hugetlbfs in bytes; not in the resident memory.",
        origin: "`HugetlbPages` of `/proc/<pid>/status`",
        labels: VM,
        otel: otel("memory.hugetlb"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_hugetlb_bytes)),
    },
    Metric {
        name: "memory_swap_bytes",
        group: SeriesGroup::Memory,
        kind: Kind::Amount,
        unit: "By",
        help: "Memory of the hypervisor process in swap, in bytes.",
        origin: "`VmSwap` of `/proc/<pid>/status`",
        labels: VM,
        otel: otel("paging.usage"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_swap_bytes)),
    },
    Metric {
        name: "memory_pss_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident memory of the hypervisor process in bytes, with 1/n of each page that n processes share; only if proc_smaps is enabled, once in its interval.",
        origin: "`Pss` of `/proc/<pid>/smaps_rollup`",
        labels: VM,
        otel: otel("memory.proportional"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_pss_bytes)),
    },
    Metric {
        name: "memory_private_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Resident memory of the hypervisor process alone, in bytes; only if proc_smaps is enabled, once in its interval.",
        origin: "`Private_Clean` and `Private_Dirty` of `/proc/<pid>/smaps_rollup`",
        labels: VM,
        otel: otel("memory.private"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.process.memory_private_bytes)),
    },
    Metric {
        name: "allocated_memory_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "Memory of the VM, in bytes.",
        origin: "sources",
        labels: VM,
        otel: otel("memory.limit"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.allocated_memory_bytes)),
    },
    Metric {
        name: "actual_memory_bytes",
        group: SeriesGroup::Base,
        kind: Kind::Amount,
        unit: "By",
        help: "The part of the memory that the balloon leaves to the guest, in bytes; absent without a balloon.",
        origin: "sources",
        labels: VM,
        otel: otel("memory.balloon.limit"),
        samples: Count(|view, sink| each(view, sink, |vm| vm.actual_memory_bytes)),
    },
    Metric {
        name: "disk_read_bytes_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "By",
        help: "Bytes that the hypervisor process read from storage, without reads from the page cache.",
        origin: "`read_bytes` of `/proc/<pid>/io`",
        labels: VM,
        otel: DISK_IO.with((DISK_DIRECTION, "read")),
        samples: Count(|view, sink| {
            count(view, sink, |vm| vm.since.process, |vm| vm.process.disk_read_bytes)
        }),
    },
    Metric {
        name: "disk_write_bytes_total",
        group: SeriesGroup::Base,
        kind: Kind::Counter,
        unit: "By",
        help: "Bytes that the hypervisor process wrote to storage, counted when a page becomes dirty.",
        origin: "`write_bytes` of `/proc/<pid>/io`",
        labels: VM,
        otel: DISK_IO.with((DISK_DIRECTION, "write")),
        samples: Count(|view, sink| {
            count(view, sink, |vm| vm.since.process, |vm| vm.process.disk_write_bytes)
        }),
    },
    Metric {
        name: "disk_cancelled_write_bytes_total",
        group: SeriesGroup::Process,
        kind: Kind::Counter,
        unit: "By",
        help: "Written bytes that never reached storage, because their file was deleted or truncated.",
        origin: "`cancelled_write_bytes` of `/proc/<pid>/io`",
        labels: VM,
        otel: otel("disk.cancelled_write"),
        samples: Count(|view, sink| {
            count(view, sink, |vm| vm.since.process, |vm| vm.process.disk_cancelled_write_bytes)
        }),
    },
];
