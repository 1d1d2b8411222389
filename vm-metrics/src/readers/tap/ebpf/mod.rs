//! Reader `tap_ebpf`: counts the traffic of TAPs by eBPF programs on them.
//!
//! | module | does |
//! |---|---|
//! | `reader` | leads the others tick by tick, in the time that `budget` gives |
//! | `present` | finds the TAPs of a tick by the devices of their interfaces |
//! | `netns_programs` | has the program sets of one network namespace |
//! | `program_set` | is one load of the programs, with its maps and TAPs |
//! | `programs` | loads the programs, pins them, gives out slots and reads counters |
//! | `hook` | attaches the programs, by `tcx` or `clsact` |
//! | `drops` | counts drops on the way to the guest |
//! | `kernel` | knows the structures of the kernel that the programs read, also those of `task_iter` |
//! | `mapped_array` | reads an array of the programs without a system call |
//! | `probe` | tries all this without a TAP, for one-shot runs |
//!
//! Without the feature `ebpf`, or on a host that refuses the programs, the reader reports the reason. The other readers of
//! TAPs go on.

#[cfg(feature = "ebpf")]
mod budget;
#[cfg(feature = "ebpf")]
pub(crate) mod cpus;
#[cfg(feature = "daemon")]
mod detach;
#[cfg(feature = "ebpf")]
mod direction;
#[cfg(feature = "ebpf")]
mod drops;
#[cfg(feature = "ebpf")]
pub(crate) mod error;
#[cfg(feature = "ebpf")]
mod hook;
#[cfg(feature = "ebpf")]
pub(crate) mod kernel;
#[cfg(feature = "ebpf")]
pub(crate) mod mapped_array;
#[cfg(feature = "ebpf")]
mod netns_programs;
mod options;
#[cfg(feature = "ebpf")]
mod own_pins;
#[cfg(feature = "ebpf")]
mod present;
#[cfg(feature = "ebpf")]
mod probe;
#[cfg(feature = "ebpf")]
mod program_set;
#[cfg(feature = "ebpf")]
mod programs;
#[cfg(feature = "ebpf")]
mod reader;
#[cfg(feature = "ebpf")]
mod starting;
#[cfg(feature = "ebpf")]
mod tap;
#[cfg(feature = "ebpf")]
mod unclaimed;

#[cfg(feature = "daemon")]
pub use self::detach::detach;
use self::options::Options;
use crate::config::{ConfigError, Section};
#[cfg(not(feature = "ebpf"))]
use crate::model::{ComponentHealth, Health};
#[cfg(feature = "ebpf")]
use crate::readers::{Purpose, Reader, not_this_kernel};
use crate::readers::{ReaderContext, ReaderDef, StartOutcome};

pub(crate) const READER: ReaderDef = ReaderDef {
    name: "tap_ebpf",
    configure: |section| {
        let options: Options = section.options()?;
        options.check().map_err(|problem| section.refusal("max_nics", &problem))?;
        Ok(Box::new(move |context| start(&options, context)))
    },
};

/// The version of what stays in the bpffs; `None` in a build without eBPF.
pub(crate) fn pins_version() -> Option<u32> {
    #[cfg(feature = "ebpf")]
    return Some(vm_metrics_common::ABI_VERSION);
    #[cfg(not(feature = "ebpf"))]
    None
}

/// What the counters of the daemon's own namespace take up, as soon as the programs are loaded.
#[cfg(feature = "ebpf")]
pub(crate) fn map_bytes(section: &Section) -> Result<u64, ConfigError> {
    /// Of each TAP and CPU, with what the kernel keeps of it.
    const PER_CPU: u64 = 352;
    let options: Options = section.options()?;
    let cpus = cpus::cpu_ids().map_or(1, |ids| u64::from(*ids));
    Ok(u64::from(options.max_nics) * PER_CPU * cpus)
}

#[cfg(not(feature = "ebpf"))]
pub(crate) fn map_bytes(_section: &Section) -> Result<u64, ConfigError> {
    Ok(0)
}

#[cfg(feature = "ebpf")]
fn start(options: &Options, context: &mut ReaderContext) -> StartOutcome {
    let host = &context.host;
    if let Some(health) = not_this_kernel(host) {
        return StartOutcome::Not(health);
    }
    let started: Result<Box<dyn Reader>, error::LoadError> = match context.purpose {
        Purpose::Look => probe::Probe::new(options, host).map(|trial| Box::new(trial) as _),
        Purpose::Serve => match own_pins::open_pins(options, host).map(Option::transpose) {
            Ok(pins) => reader::TapEbpf::new(options, context, pins).map(|reader| Box::new(reader) as _),
            Err(held) => return StartOutcome::Refused(held.to_string()),
        },
    };
    match started {
        Ok(reader) => StartOutcome::Running(reader),
        Err(error) => StartOutcome::Not(error.health()),
    }
}

#[cfg(not(feature = "ebpf"))]
fn start(_options: &Options, _: &mut ReaderContext) -> StartOutcome {
    StartOutcome::Not(ComponentHealth::new(
        Health::Unsupported,
        "this binary was built without eBPF (--no-default-features)",
    ))
}
