//! The offsets that the program at the task iterator reads.

use vm_metrics_common::{SumLayout, TaskLayout};

use super::btf::{BtfError, Types};

/// Where the counters of memory are, and how each of them is made.
struct MemoryLayout {
    at: u32,
    stride: u32,
    value: u32,
    per_cpu: u32,
}

pub(super) fn layout(types: &Types<'_>) -> Result<TaskLayout, BtfError> {
    let [task_pid, task_leader, task_signal, task_mm, task_start] =
        types.bytes_of("task_struct", ["thread_pid", "group_leader", "signal", "mm", "start_boottime"])?;
    let [scheduled] = types.bytes_of("task_struct", ["se"])?;
    let [ran] = types.bytes_of("sched_entity", ["sum_exec_runtime"])?;
    let [signal_threads, signal_sequence, signal_cpu] =
        types.bytes_of("signal_struct", ["nr_threads", "stats_lock", "sum_sched_runtime"])?;
    let [pid_level, pid_numbers] = types.bytes_of("pid", ["level", "numbers"])?;
    let [pid_number] = types.bytes_of("upid", ["nr"])?;
    let [mm_total, mm_hugetlb] = types.bytes_of("mm_struct", ["total_vm", "hugetlb_usage"])?;
    let [array_per_cpu] = types.bytes_of("bpf_array", ["pptrs"])?;
    let memory = memory(types)?;
    let counter = |kind| Ok(memory.at + types.value_of(kind)? * memory.stride);
    Ok(TaskLayout {
        task_pid,
        task_leader,
        task_signal,
        task_mm,
        task_start,
        task_sums: sums(types, "task_struct", scheduled + ran)?,
        signal_threads,
        // The lock's first word.
        signal_sequence,
        signal_sums: sums(types, "signal_struct", signal_cpu)?,
        pid_level,
        pid_number: pid_numbers + pid_number,
        pid_number_size: types.size_of("upid")?,
        mm_total,
        mm_hugetlb,
        mm_anon: counter("MM_ANONPAGES")?,
        mm_file: counter("MM_FILEPAGES")?,
        mm_shmem: counter("MM_SHMEMPAGES")?,
        mm_swap: counter("MM_SWAPENTS")?,
        counter_value: memory.value,
        counter_per_cpu: memory.per_cpu,
        array_per_cpu,
    })
}

/// Threads and the sums of the ended ones have the same members, but for the CPU time.
fn sums(types: &Types<'_>, structure: &'static str, cpu: u32) -> Result<SumLayout, BtfError> {
    let [minor_faults, major_faults, io] = types.bytes_of(structure, ["min_flt", "maj_flt", "ioac"])?;
    let [read, write, cancelled] =
        types.bytes_of("task_io_accounting", ["read_bytes", "write_bytes", "cancelled_write_bytes"])?;
    Ok(SumLayout {
        cpu,
        minor_faults,
        major_faults,
        read_bytes: io + read,
        write_bytes: io + write,
        cancelled_write_bytes: io + cancelled,
    })
}

/// Until Linux 6.1 a counter is one number, later a sum over CPUs.
fn memory(types: &Types<'_>) -> Result<MemoryLayout, BtfError> {
    let [at] = types.bytes_of("mm_struct", ["rss_stat"])?;
    match types.type_of("mm_struct", "rss_stat")? {
        "mm_rss_stat" => {
            let [count] = types.bytes_of("mm_rss_stat", ["count"])?;
            Ok(MemoryLayout { at: at + count, stride: 8, value: 0, per_cpu: 0 })
        }
        "percpu_counter" => {
            let [value, per_cpu] = types.bytes_of("percpu_counter", ["count", "counters"])?;
            Ok(MemoryLayout { at, stride: types.size_of("percpu_counter")?, value, per_cpu })
        }
        _ => Err(BtfError::Missing("rss_stat in a form that this version knows")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use crate::host::Host;

    #[test]
    fn the_running_kernels_tasks_are_understood() {
        let Ok(kernel) = Kernel::read(&Host::default().btf()) else { return };
        let layout = kernel.tasks().unwrap();
        assert_eq!((layout.pid_level, layout.pid_number_size), (4, 16), "{layout:?}");
        assert!(layout.task_sums.write_bytes == layout.task_sums.read_bytes + 8, "{layout:?}");
    }
}
