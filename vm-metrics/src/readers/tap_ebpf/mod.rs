//! The programs on the TAPs: `load` brings them into the kernel, `attach` hangs them on the TAPs of the tick,
//! `counters` reads what they count.
//!
//! Without the feature `ebpf`, or on a host that refuses the programs, the reader says why and the baseline goes on.

#[cfg(feature = "ebpf")]
mod attach;
#[cfg(feature = "ebpf")]
mod counters;
#[cfg(feature = "ebpf")]
mod load;
#[cfg(feature = "ebpf")]
mod reader;
#[cfg(feature = "ebpf")]
mod slots;

use serde::Deserialize;

use super::{ReaderDef, Started};
use crate::host::Host;
#[cfg(not(feature = "ebpf"))]
use crate::model::{Health, PartHealth};

pub(super) const DEF: ReaderDef = ReaderDef {
    name: NAME,
    help: "packets and bytes of each TAP by protocol, counted by eBPF programs on it",
    configure: |section| {
        let options: Options = section.options()?;
        options.check().map_err(|problem| section.refusal(&problem))?;
        Ok(Box::new(move |host| start(&options, host)))
    },
};

pub(crate) const NAME: &str = "tap_ebpf";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// TAPs that can be counted at the same time.
    max_nics: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_nics: 1024 }
    }
}

impl Options {
    /// One slot per CPU and TAP must stay within what a map may have.
    const MAX_NICS: u32 = 65_536;

    fn check(&self) -> Result<(), String> {
        if (1..=Self::MAX_NICS).contains(&self.max_nics) {
            Ok(())
        } else {
            Err(format!("max_nics = {} is not between 1 and {}", self.max_nics, Self::MAX_NICS))
        }
    }
}

#[cfg(feature = "ebpf")]
fn start(options: &Options, host: &Host) -> Started {
    if let Some(health) = super::not_this_kernel(host) {
        return Started::Not(health);
    }
    match reader::TapEbpf::new(options.max_nics) {
        Ok(reader) => Started::Running(Box::new(reader)),
        Err(error) => Started::Not(error.health()),
    }
}

#[cfg(not(feature = "ebpf"))]
fn start(_options: &Options, _host: &Host) -> Started {
    Started::Not(PartHealth::new(
        Health::Unsupported,
        "this binary was built without eBPF (--no-default-features)",
    ))
}
