//! Start times of counters in seconds of Unix time; `None` if unknown.
//!
//! Exporters publish it as the created timestamp of a series with all its labels. A VM that gets another name has new
//! series, which begin at the values of the old ones: their start is unknown.

#![warn(missing_docs)]

use std::time::SystemTime;

/// Of the counters of a VM as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VmSince {
    /// Of what the kernel counts of the process.
    pub process: Option<f64>,
    /// Of what the daemon adds up of its threads.
    pub cpu_wait: Option<f64>,
}

/// Of the counters of a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NicSince {
    /// Of what the device counts.
    pub device: Option<f64>,
    /// Of what only the eBPF programs count.
    pub ebpf: Option<f64>,
}

/// In seconds of Unix time.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
