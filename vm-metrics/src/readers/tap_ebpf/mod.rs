//! The programs on the TAPs: `load` brings them into the kernel, `attach` hangs them on a TAP by `tcx` or `clsact`,
//! `counters` reads what they count, `slots` says who counts where, and `pins` keeps all of it while no daemon runs.
//! `instance` is all of these for one load of the programs, `place` has the loads of one network namespace, and `reader`
//! leads them tick by tick within the time that `budget` gives.
//!
//! `drops` counts what was dropped on its way to the guest; `kernel` knows what the programs read of the kernel's own.
//!
//! Without the feature `ebpf`, or on a host that refuses the programs, the reader says why and the baseline goes on.

#[cfg(feature = "ebpf")]
mod attach;
#[cfg(feature = "ebpf")]
mod budget;
#[cfg(feature = "ebpf")]
mod clsact;
#[cfg(feature = "ebpf")]
mod counters;
#[cfg(feature = "daemon")]
mod detach;
#[cfg(feature = "ebpf")]
mod drops;
#[cfg(feature = "ebpf")]
mod error;
#[cfg(feature = "ebpf")]
mod filters;
#[cfg(feature = "ebpf")]
mod instance;
#[cfg(feature = "ebpf")]
mod kernel;
#[cfg(feature = "ebpf")]
mod load;
#[cfg(feature = "ebpf")]
mod pins;
#[cfg(feature = "ebpf")]
mod place;
#[cfg(feature = "ebpf")]
mod reader;
#[cfg(feature = "ebpf")]
mod slots;
#[cfg(feature = "ebpf")]
mod starting;
#[cfg(feature = "ebpf")]
mod tap;
#[cfg(feature = "ebpf")]
mod tcx;

use std::path::PathBuf;

use serde::Deserialize;

#[cfg(feature = "daemon")]
pub use self::detach::detach;
#[cfg(feature = "ebpf")]
use super::{Purpose, Reader, ReaderError};
use super::{ReaderDef, Setting, Started};
use crate::config::{ConfigError, Section};
#[cfg(feature = "ebpf")]
use crate::host::Host;
#[cfg(not(feature = "ebpf"))]
use crate::model::{ComponentHealth, Health};

pub(super) const DEF: ReaderDef = ReaderDef {
    name: NAME,
    help: "packets and bytes of each TAP by protocol, counted by eBPF programs on it",
    configure: |section| {
        let options: Options = section.options()?;
        options.check().map_err(|problem| section.refusal("max_nics", &problem))?;
        Ok(Box::new(move |setting| start(&options, setting)))
    },
};

pub(crate) const NAME: &str = "tap_ebpf";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// TAPs that can be counted at the same time.
    max_nics: u32,
    attach: Way,
    /// Whether maps and attachments stay when the daemon leaves.
    pin: bool,
    /// `vm-metrics` in the host's bpffs, unless given.
    pin_dir: Option<PathBuf>,
    mount_bpffs: bool,
}

/// The way to attach that is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// TCX, and clsact where the kernel has no TCX.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_nics: 1024, attach: Way::default(), pin: true, pin_dir: None, mount_bpffs: false }
    }
}

impl Options {
    /// One slot per CPU and TAP must stay within what a map may have.
    const MAX_NICS: u32 = 65_536;

    fn check(&self) -> Result<(), String> {
        if (1..=Self::MAX_NICS).contains(&self.max_nics) {
            Ok(())
        } else {
            Err(format!("{} is not between 1 and {}", self.max_nics, Self::MAX_NICS))
        }
    }
}

/// The version of what stays in the bpffs; `None` in a build without eBPF.
pub(crate) fn pins_version() -> Option<u32> {
    #[cfg(feature = "ebpf")]
    return Some(vm_metrics_common::ABI_VERSION);
    #[cfg(not(feature = "ebpf"))]
    None
}

/// What the counters of the daemon's own namespace take up, as soon as the programs are loaded.
#[cfg(feature = "ebpf")]
pub(super) fn map_bytes(section: &Section) -> Result<u64, ConfigError> {
    /// Of each TAP and CPU, with what the kernel keeps of it.
    const PER_CPU: u64 = 352;
    let options: Options = section.options()?;
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    Ok(u64::from(options.max_nics) * PER_CPU * cpus)
}

#[cfg(not(feature = "ebpf"))]
pub(super) fn map_bytes(_section: &Section) -> Result<u64, ConfigError> {
    Ok(0)
}

#[cfg(feature = "ebpf")]
impl Options {
    fn pin_dir(&self, host: &Host) -> PathBuf {
        self.pin_dir.clone().unwrap_or_else(|| host.bpf_fs().join("vm-metrics"))
    }
}

#[cfg(feature = "ebpf")]
fn start(options: &Options, setting: &Setting) -> Started {
    let host = &setting.host;
    if let Some(health) = super::not_this_kernel(host) {
        return Started::Not(health);
    }
    let started: Result<Box<dyn Reader>, error::LoadError> = match setting.purpose {
        Purpose::Look => reader::Trial::new(options, host).map(|trial| Box::new(trial) as _),
        Purpose::Serve => match pins(options, host).map(Option::transpose) {
            Ok(pins) => reader::TapEbpf::new(options, setting, pins).map(|reader| Box::new(reader) as _),
            Err(held) => return Started::Refused(held.to_string()),
        },
    };
    match started {
        Ok(reader) => Started::Running(reader),
        Err(error) => Started::Not(error.health()),
    }
}

/// `None` where nothing is to be pinned. That it cannot be done is no reason not to count; that another daemon has the pins
/// is one.
#[cfg(feature = "ebpf")]
fn pins(options: &Options, host: &Host) -> Result<Option<Result<pins::Pins, ReaderError>>, pins::PinError> {
    if !options.pin {
        return Ok(None);
    }
    let pin_dir = options.pin_dir(host);
    match pins::Pins::open(&pin_dir, own_load(host), options.mount_bpffs) {
        Ok(pins) => {
            pins::report_other_versions(&pin_dir);
            Ok(Some(Ok(pins)))
        }
        Err(held @ pins::PinError::Held { .. }) => Err(held),
        Err(error) => Ok(Some(Err((&error).into()))),
    }
}

/// What a look says of the pins that a daemon would make.
#[cfg(feature = "ebpf")]
fn check_pins(options: &Options, host: &Host) -> Result<(), pins::PinError> {
    if !options.pin {
        return Ok(());
    }
    pins::Pins::check(&options.pin_dir(host), own_load(host), options.mount_bpffs)
}

#[cfg(not(feature = "ebpf"))]
fn start(_options: &Options, _setting: &Setting) -> Started {
    Started::Not(ComponentHealth::new(
        Health::Unsupported,
        "this binary was built without eBPF (--no-default-features)",
    ))
}

/// The programs of the namespace that this process is in.
#[cfg(feature = "ebpf")]
fn own_load(host: &Host) -> pins::LoadId {
    pins::LoadId { netns: netns_id().or_else(|| host.own_netns()).unwrap_or_default(), of: None, index: 0 }
}

/// What tells the network namespace that this thread is in from any other.
#[cfg(feature = "ebpf")]
fn netns_id() -> Option<u64> {
    super::rtnetlink::Links::open().ok()?.netns_cookie()
}
