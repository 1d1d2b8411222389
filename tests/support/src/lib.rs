//! Real TAPs, network namespaces, guests and servers for the tests and the demo.
//!
//! Frames go through the kernel, and the guest is a Linux that boots. A value of this crate removes on drop everything
//! that it made. Its child processes end with the thread that started them.

pub mod bpf;
pub mod child;
pub mod daemon;
pub mod firecracker;
pub mod frames;
pub mod guest;
pub mod http;
pub mod http_recorder;
pub mod kvm;
pub mod link;
pub mod macvtap;
pub mod metrics_text;
pub mod netns;
pub mod otlp;
pub mod packages;
pub mod packet_socket;
pub mod prometheus;
pub mod puppet;
pub mod random;
pub mod service;
pub mod skip;
mod sys;
pub mod systemd;
pub mod tap;
pub mod tenant;
pub mod victoria_metrics;
pub mod vm_process;
pub mod wait;

pub use sys::bpf::{detach_bpf_link, hold_bpf_link};
pub use sys::process_cpu_time;
