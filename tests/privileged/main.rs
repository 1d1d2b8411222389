//! Real TAPs, real programs, known frames: each test has a network namespace of its own. Needs root.

#![cfg(feature = "ebpf")]
#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod alone;
mod attach;
mod chain;
mod conservation;
mod counts;
mod elsewhere;
mod fallback;
mod gaps;
mod guest_rx;
mod heap;
mod hostile;
mod kvm;
mod lab;
mod last_words;
mod macvtap;
mod netlink;
mod operator;
mod owners;
mod pid_reuse;
mod pins;
mod pool;
mod rights;
mod rounds;
mod test_run;
mod twins;
mod user;
mod vmm;
