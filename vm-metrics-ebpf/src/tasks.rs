//! Reads the processes of VMs: the kernel calls it for each thread.
//!
//! The adds are plain, because one reader at a time walks through the threads.

#![no_std]
#![no_main]

mod memory;
mod object;
mod pages;

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_get_current_task,
    macros::map,
    maps::{Array, HashMap},
};
use memory::read;
use vm_metrics_common::{SumLayout, TaskGroup, TaskLayout, TaskRun, TaskSums};

#[unsafe(no_mangle)]
static TASK_LAYOUT: TaskLayout = TaskLayout::UNKNOWN;

/// User space sets it before loading.
#[unsafe(no_mangle)]
static POSSIBLE_CPUS: Global<u32> = Global::new(1);

/// User space sets the size of both before loading.
#[map]
static SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static GROUPS: Array<TaskGroup> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static RUN: Array<TaskRun> = Array::with_max_entries(1, 0);

/// Reads a field of the layout: volatile, because the compiler must not assume the zeroes above.
macro_rules! at {
    ($field:ident) => {
        // SAFETY: a valid, aligned address of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::TASK_LAYOUT.$field) as usize }
    };
}
pub(crate) use at;

/// The kernel's `bpf_iter__task`.
#[repr(C)]
#[derive(Debug)]
pub struct TaskContext {
    meta: *const Meta,
    task: *const c_void,
}

/// The kernel's `bpf_iter_meta`.
#[repr(C)]
#[derive(Debug)]
struct Meta {
    file: *const c_void,
    session: u64,
}

/// # Safety
///
/// The kernel hands it a valid context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub unsafe extern "C" fn visit_task(context: *const TaskContext) -> i32 {
    // SAFETY: the kernel hands the program a valid context.
    let (meta, task) = unsafe { ((*context).meta, (*context).task) };
    // After the last thread it is null.
    if !task.is_null() {
        // SAFETY: valid as long as the program runs.
        visit(unsafe { (*meta).session }, task);
    }
    0
}

#[inline(always)]
fn visit(round: u64, task: *const c_void) -> Option<()> {
    // SAFETY: a pointer to a whole value. No other read writes to it.
    let run = unsafe { &mut *RUN.get_ptr_mut(0)? };
    let tasks = if run.round == round { run.tasks } else { 0 };
    *run = TaskRun { round, tasks: tasks + 1, ..*run };
    if run.measured_cpus < POSSIBLE_CPUS.load() {
        pages::measure(run.measured_cpus)?;
        run.measured_cpus += 1;
    }

    let leader = read::<*const c_void>(task, at!(task_leader))?;
    // SAFETY: a pointer to a whole value, valid until the program ends.
    let slot = unsafe { *SLOTS.get_ptr(number(leader)?)? };
    // SAFETY: as above, and no other read writes to it.
    let group = unsafe { &mut *GROUPS.get_ptr_mut(slot)? };
    let signal = read::<*const c_void>(task, at!(task_signal))?;
    if group.round != round {
        *group = begin(round, signal)?;
    }
    // Left set until the thread is added: a thread that is added in part makes the entry useless.
    let torn = group.torn;
    group.torn = 1;
    add(&mut group.sums, sums(task, &TASK_LAYOUT.task_sums)?);
    group.visited += 1;
    if task == leader {
        group.start_nsec = read(task, at!(task_start))?;
        let mm = read::<*const c_void>(task, at!(task_mm))?;
        // An ended leader has none.
        if !mm.is_null() {
            group.pages = pages::of(mm)?;
        }
    }
    // The order of visits is that of pids. A new thread may come early, in the place of one that ends before its turn.
    let is_same = read::<u32>(signal, at!(signal_sequence))? == group.sequence
        && read::<u32>(signal, at!(signal_threads))? == group.threads;
    group.torn = if is_same { torn } else { 1 };
    Some(())
}

/// The number of a process in the namespace of the reader, which the numbers of user space are from.
#[inline(always)]
fn number(leader: *const c_void) -> Option<u32> {
    // SAFETY: it has no requirements.
    let current = unsafe { bpf_get_current_task() } as *const c_void;
    let own = read::<*const c_void>(current, at!(task_pid))?;
    let level = read::<u32>(own, at!(pid_level))?;
    let pid = read::<*const c_void>(leader, at!(task_pid))?;
    read(pid, at!(pid_number) + level as usize * at!(pid_number_size))
}

/// Begins with the sums of the ended threads. A thread that ends from now on changes the sequence number, so that it is
/// neither missing nor counted twice unnoticed. The number is odd while the sums change.
#[inline(always)]
fn begin(round: u64, signal: *const c_void) -> Option<TaskGroup> {
    let sequence = read::<u32>(signal, at!(signal_sequence))?;
    Some(TaskGroup {
        round,
        sequence,
        torn: sequence & 1,
        threads: read(signal, at!(signal_threads))?,
        sums: sums(signal, &TASK_LAYOUT.signal_sums)?,
        ..TaskGroup::default()
    })
}

#[inline(always)]
fn add(sums: &mut TaskSums, more: TaskSums) {
    sums.cpu_nsec += more.cpu_nsec;
    sums.minor_faults += more.minor_faults;
    sums.major_faults += more.major_faults;
    sums.read_bytes += more.read_bytes;
    sums.write_bytes += more.write_bytes;
    sums.cancelled_write_bytes += more.cancelled_write_bytes;
}

#[inline(always)]
fn sums(of: *const c_void, layout: &'static SumLayout) -> Option<TaskSums> {
    // SAFETY: a valid, aligned address of a static; volatile, because the compiler must not believe its zeroes.
    let at = |field: &'static u32| unsafe { ptr::read_volatile(field) as usize };
    Some(TaskSums {
        cpu_nsec: read(of, at(&layout.cpu))?,
        minor_faults: read(of, at(&layout.minor_faults))?,
        major_faults: read(of, at(&layout.major_faults))?,
        read_bytes: read(of, at(&layout.read_bytes))?,
        write_bytes: read(of, at(&layout.write_bytes))?,
        cancelled_write_bytes: read(of, at(&layout.cancelled_write_bytes))?,
    })
}
