//! Known frames over real TAPs and programs, with a namespace per test.
//!
//! Needs root.

#![cfg(feature = "ebpf")]
#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod attach;
mod capabilities;
mod chain;
mod conservation;
mod counts;
mod crowd;
mod duplicate_ids;
mod elsewhere;
mod fallback;
mod final_counters;
mod gaps;
mod guest_rx;
mod heap;
mod hostile;
mod isolation;
mod kvm;
mod lab;
mod leaks;
mod macvtap;
mod netlink;
mod operator;
mod owners;
mod pid_reuse;
mod pins;
mod pool;
mod splits;
mod task_iter;
mod test_run;
mod user;
mod vmm;
