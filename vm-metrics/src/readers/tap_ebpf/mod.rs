//! The programs on the TAPs: `load` brings them into the kernel, `attach` hangs them on the TAPs of the tick,
//! `counters` reads what they count, `slots` says who counts where, and `pins` keeps all of it while no daemon runs.
//!
//! Without the feature `ebpf`, or on a host that refuses the programs, the reader says why and the baseline goes on.

#[cfg(feature = "ebpf")]
mod attach;
#[cfg(feature = "ebpf")]
mod counters;
#[cfg(feature = "ebpf")]
mod error;
#[cfg(feature = "ebpf")]
mod load;
#[cfg(feature = "ebpf")]
mod pins;
#[cfg(feature = "ebpf")]
mod reader;
#[cfg(feature = "ebpf")]
mod slots;

use std::path::PathBuf;

use serde::Deserialize;

use super::{Purpose, ReaderDef, Started};
use crate::config::Section;
use crate::host::Host;
#[cfg(not(feature = "ebpf"))]
use crate::model::{Health, PartHealth};

pub(super) const DEF: ReaderDef = ReaderDef {
    name: NAME,
    help: "packets and bytes of each TAP by protocol, counted by eBPF programs on it",
    configure: |section| {
        let options: Options = section.options()?;
        options.check().map_err(|problem| section.refusal("max_nics", &problem))?;
        Ok(Box::new(move |host, purpose| start(&options, host, purpose)))
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

impl Options {
    fn pin_dir(&self, host: &Host) -> PathBuf {
        self.pin_dir.clone().unwrap_or_else(|| host.bpf_fs().join("vm-metrics"))
    }
}

#[cfg(feature = "ebpf")]
fn start(options: &Options, host: &Host, purpose: Purpose) -> Started {
    if let Some(health) = super::not_this_kernel(host) {
        return Started::Not(health);
    }
    let pins = match purpose {
        Purpose::Serve if options.pin => {
            match pins::Pins::open(&options.pin_dir(host), options.mount_bpffs) {
                Ok(pins) => Some(pins),
                Err(error @ pins::PinError::Held { .. }) => return Started::Refused(error.to_string()),
                Err(error) => {
                    tracing::warn!(
                        "no pins: {error}; what passes while the daemon is away is seen by the device only"
                    );
                    None
                }
            }
        }
        Purpose::Serve | Purpose::Look => None,
    };
    let started = reader::TapEbpf::new(options, pins).and_then(|mut reader| {
        if purpose == Purpose::Look {
            reader.try_out()?;
        }
        Ok(reader)
    });
    match started {
        Ok(reader) => Started::Running(Box::new(reader)),
        Err(error) => Started::Not(error.health()),
    }
}

#[cfg(not(feature = "ebpf"))]
fn start(_options: &Options, _host: &Host, _purpose: Purpose) -> Started {
    Started::Not(PartHealth::new(
        Health::Unsupported,
        "this binary was built without eBPF (--no-default-features)",
    ))
}

/// Removes what daemons have left on this host: pins, and filters on the devices of this network namespace. Says what it
/// removed, line by line.
///
/// # Errors
/// When a daemon that runs holds the pins, or something cannot be removed.
#[cfg(feature = "ebpf")]
pub fn detach(section: &Section, host: &Host, every_version: bool) -> anyhow::Result<Vec<String>> {
    let options: Options = section.options()?;
    let versions = pins::remove_all(&options.pin_dir(host), every_version)?;
    let mut removed: Vec<String> = versions.iter().map(|dir| format!("removed {}", dir.display())).collect();
    for device in host.net_device_names()? {
        if attach::remove_filters(&device) {
            removed.push(format!("removed the filters on {device}"));
        }
    }
    Ok(removed)
}

#[cfg(not(feature = "ebpf"))]
pub fn detach(_section: &Section, _host: &Host, _every_version: bool) -> anyhow::Result<Vec<String>> {
    anyhow::bail!(
        "this binary was built without eBPF (--no-default-features): it attaches and detaches nothing"
    )
}
