//! Layout of the numbers of processes by the program at the task iterator.

/// Names as they stand in the eBPF object.
pub mod names {
    /// Program at `iter/task`. One read of the iterator calls it for each thread of the host.
    pub const PROGRAM: &str = "visit_task";
    pub const TARGET: &str = "task";
    /// `HASH` from the number of a process to its entry in [`MAP_GROUPS`]. User space creates the entries; other processes
    /// are not read.
    pub const MAP_SLOTS: &str = "SLOTS";
    /// `ARRAY` of [`TaskGroup`](super::TaskGroup), memory-mapped.
    pub const MAP_GROUPS: &str = "GROUPS";
    /// `ARRAY` of one [`TaskRun`](super::TaskRun).
    pub const MAP_RUN: &str = "RUN";
    /// `ARRAY` by CPU: the distance from a per-CPU pointer to the memory of that CPU.
    pub const MAP_DISTANCES: &str = "DISTANCES";
    /// Global: [`TaskLayout`](super::TaskLayout).
    pub const GLOBAL_LAYOUT: &str = "TASK_LAYOUT";
}

/// One read of the iterator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRun {
    /// The kernel's number of the read, which no other has.
    pub round: u64,
    /// Threads of all processes of the host.
    pub tasks: u64,
    /// CPUs with an entry in [`names::MAP_DISTANCES`], since the start of the program.
    pub measured_cpus: u32,
    /// Up to a whole word; always 0.
    pub reserved: u32,
}

/// A process with all its threads, also the ended ones.
// One reader at a time calls the program for one thread after the other, so plain adds are enough.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskGroup {
    /// The read that the numbers are from.
    pub round: u64,
    /// Start of the process since boot; 0 until its first thread is read.
    pub start_nsec: u64,
    pub sums: TaskSums,
    pub pages: TaskPages,
    /// Threads according to the kernel, at the first one of the read.
    pub threads: u32,
    /// Threads that were read.
    pub visited: u32,
    /// The kernel's sequence number of the sums of ended threads, at the first thread.
    pub sequence: u32,
    /// Not 0 if a thread started or ended during the read: one may be missing, or be counted twice.
    pub torn: u32,
}

/// Counters of a thread, or of several.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskSums {
    pub cpu_nsec: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub cancelled_write_bytes: u64,
}

/// Memory of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskPages {
    /// Address space; 0 for a process without memory.
    pub total: u64,
    pub hugetlb: u64,
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub swap: u64,
}

impl TaskGroup {
    /// Whether the read of this round has each thread once, and the memory. More threads than the kernel's number of them
    /// include an ended one, which the sums of ended threads have, too.
    #[must_use]
    pub fn is_whole(&self, round: u64) -> bool {
        let has_all_threads = self.torn == 0 && self.visited == self.threads;
        self.round == round && has_all_threads && self.start_nsec > 0 && self.pages.total > 0
    }
}

/// Offsets in bytes of kernel structures that the program reads. User space finds them in the kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLayout {
    pub task_pid: u32,
    pub task_leader: u32,
    pub task_signal: u32,
    pub task_mm: u32,
    pub task_start: u32,
    pub task_sums: SumLayout,
    pub signal_threads: u32,
    /// Offset of the sequence number of the sums of ended threads.
    pub signal_sequence: u32,
    pub signal_sums: SumLayout,
    pub pid_level: u32,
    /// Offset of the number of a process in the outermost namespace.
    pub pid_number: u32,
    /// Distance to its number in the next namespace.
    pub pid_number_size: u32,
    pub mm_total: u32,
    pub mm_hugetlb: u32,
    pub mm_anon: u32,
    pub mm_file: u32,
    pub mm_shmem: u32,
    pub mm_swap: u32,
    /// Offset of the number in one of the four counters above.
    pub counter_value: u32,
    /// Offset of the pointer to the share of each CPU; 0 if CPUs have no share.
    pub counter_per_cpu: u32,
    /// Offset in a per-CPU map of the pointer to its first entry.
    pub array_per_cpu: u32,
}

/// Offsets of [`TaskSums`] in a structure of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SumLayout {
    pub cpu: u32,
    pub minor_faults: u32,
    pub major_faults: u32,
    pub read_bytes: u32,
    pub write_bytes: u32,
    pub cancelled_write_bytes: u32,
}

impl TaskLayout {
    // SAFETY: made of integers, of which zero is one.
    pub const UNKNOWN: Self = unsafe { core::mem::zeroed() };
}

const _: () = {
    assert!(size_of::<TaskRun>() == 24);
    assert!(size_of::<TaskGroup>() == 128);
    assert!(size_of::<TaskLayout>() == 31 * 4);
};
