//! Reads the numbers of hypervisor processes: one reader per file of procfs, and `task_iter`.

mod cpu_clock;
mod exits;
pub(super) mod fd;
mod files;
pub(super) mod io;
pub(super) mod smaps;
pub(super) mod stat;
pub(super) mod statm;
pub(super) mod status;
pub(super) mod task_iter;
pub(super) mod threads;
