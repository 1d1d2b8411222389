//! The vocabulary of VMs, readings and snapshots, without I/O and clock.

mod batch;
mod causes;
mod cgroup;
mod device;
mod earlier;
mod fair_share;
mod frame_counts;
mod lifecycle;
mod nic_stats;
mod printable;
mod process_stats;
mod program_name;
#[cfg(feature = "daemon")]
mod schema;
mod since;
mod snapshot;
mod stats;
mod tenant;
mod trust;
mod unmonitored;
mod vm;
mod vm_state;

pub use batch::{
    Batch, EbpfReading, FIRST_NUMBER, NicReadings, SchedTimes, ShortLivedDevice, TapReading, TapStats,
    ThreadsReading, VcpuReading,
};
pub(crate) use batch::{ProcessReading, by_vm};
pub(crate) use causes::in_one_line;
pub(crate) use cgroup::CgroupCounters;
pub use cgroup::{CgroupStats, PressureStats};
pub use device::{Device, DeviceExit, DeviceId, NicKind};
pub use earlier::EarlierCounts;
pub use fair_share::{Excess, Overuse, fair_share};
pub use frame_counts::{EbpfStats, FrameCounts};
pub use lifecycle::{EndReason, Lifecycle, LifecycleCounts};
pub use nic_stats::{AttachMode, NicSource, NicStats};
pub(crate) use printable::{Escaping, Printable, is_unsafe};
pub use process_stats::ProcessStats;
pub use program_name::ProgramName;
pub(crate) use since::unix_seconds;
pub use since::{NicSince, VmSince};
pub use snapshot::{
    ComponentHealth, ComponentKind, ComponentRun, ComponentTotals, Health, MissedTicks, Snapshot,
};
pub use stats::{VcpuStats, VmStats};
pub(crate) use tenant::{Tenant, in_turns};
pub use trust::Trust;
pub use unmonitored::{UnmonitoredKind, UnmonitoredNic};
pub(crate) use vm::is_device_name;
pub use vm::{Hypervisor, InstanceInfo, NetworkLimits, Nic, VmSet, build_instance_info, tap_name};
pub use vm_metrics_common::{DirectionStats, Traffic};
pub use vm_state::VmState;
