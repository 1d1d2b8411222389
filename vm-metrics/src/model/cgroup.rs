//! Numbers of the control group (v2) that a VM's process is in.

use serde::Serialize;

/// Counters of a control group, in the order of [`CgroupStats::counters`].
pub(crate) type CgroupCounters = [Option<u64>; 10];

/// Numbers of the control group (v2) of a VM's process, other processes of the group included. `None` if the kernel or the
/// group does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct CgroupStats {
    /// Periods of the CPU limit in which the group wanted to run (`nr_periods` of `cpu.stat`).
    pub cpu_periods: Option<u64>,
    /// Periods in which it reached its limit and had to wait (`nr_throttled`).
    pub cpu_throttled_periods: Option<u64>,
    /// Time of these waits, on all CPUs, in microseconds (`throttled_usec`).
    pub cpu_throttled_usec: Option<u64>,
    /// Processes of the group that the kernel killed for lack of memory (`oom_kill` of `memory.events`).
    pub oom_kills: Option<u64>,
    /// Time without a CPU (`cpu.pressure`).
    pub cpu_pressure: PressureStats,
    /// Time of waits for memory (`memory.pressure`).
    pub memory_pressure: PressureStats,
    /// Time of waits for storage (`io.pressure`).
    pub io_pressure: PressureStats,
    /// Present memory of the group, page cache included (`memory.current`).
    pub memory_bytes: Option<u64>,
    /// Limit of its memory (`memory.max`); `None` also without a limit.
    pub memory_limit_bytes: Option<u64>,
}

/// Time in which tasks of a control group waited for a resource, in microseconds (`total` of its pressure file).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct PressureStats {
    /// At least one task waited.
    pub some_usec: Option<u64>,
    /// All non-idle tasks waited.
    pub full_usec: Option<u64>,
}

impl CgroupStats {
    pub(crate) fn counters(mut self) -> CgroupCounters {
        self.counters_mut().map(|counter| *counter)
    }

    /// The same with these counters.
    pub(crate) fn with_counters(mut self, counters: CgroupCounters) -> Self {
        for (counter, value) in self.counters_mut().into_iter().zip(counters) {
            *counter = value;
        }
        self
    }

    /// For a terminated VM: no gauges; unreadable counters keep their former value.
    pub(crate) fn ended(last: Option<Self>, before: Option<Self>) -> Option<Self> {
        let counters = match (last.map(Self::counters), before.map(Self::counters)) {
            (Some(last), Some(before)) => std::array::from_fn(|at| last[at].or(before[at])),
            (last, before) => last.or(before)?,
        };
        Some(Self::default().with_counters(counters))
    }

    fn counters_mut(&mut self) -> [&mut Option<u64>; 10] {
        // Without `..`: a new field is a counter, or stands here with `_`.
        let Self {
            cpu_periods,
            cpu_throttled_periods,
            cpu_throttled_usec,
            oom_kills,
            cpu_pressure: PressureStats { some_usec: cpu_some, full_usec: cpu_full },
            memory_pressure: PressureStats { some_usec: memory_some, full_usec: memory_full },
            io_pressure: PressureStats { some_usec: io_some, full_usec: io_full },
            memory_bytes: _,
            memory_limit_bytes: _,
        } = self;
        [
            cpu_periods,
            cpu_throttled_periods,
            cpu_throttled_usec,
            oom_kills,
            cpu_some,
            cpu_full,
            memory_some,
            memory_full,
            io_some,
            io_full,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_groups_keep_counters_and_lose_gauges() {
        let counters = std::array::from_fn(|at| Some(at as u64));
        let before =
            CgroupStats { memory_bytes: Some(1), memory_limit_bytes: Some(2), ..CgroupStats::default() };
        let before = before.with_counters(counters);
        assert_eq!(before.counters(), counters);
        let last = CgroupStats { oom_kills: Some(9), ..CgroupStats::default() };
        let ended = CgroupStats::ended(Some(last), Some(before)).unwrap();
        assert_eq!(
            (ended.oom_kills, ended.cpu_periods, ended.io_pressure),
            (Some(9), Some(0), before.io_pressure)
        );
        assert_eq!((ended.memory_bytes, ended.memory_limit_bytes), (None, None));
        assert_eq!(CgroupStats::ended(None, None), None);
    }
}
