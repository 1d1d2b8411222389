//! The section `[readers.tap_ebpf]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;
#[cfg(feature = "ebpf")]
use vm_metrics_common::Splits;

#[cfg(feature = "ebpf")]
use crate::host::Host;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// TAPs that can be counted at the same time.
    pub(crate) max_nics: u32,
    pub(crate) attach: AttachMethod,
    /// Whether maps and attachments stay when the daemon leaves.
    pub(crate) pin: bool,
    /// `vm-metrics` in the host's bpffs, unless given.
    pub(crate) pin_dir: Option<PathBuf>,
    pub(crate) mount_bpffs: bool,
    /// The counters of the programs that are on.
    pub(crate) splits: Vec<Split>,
}

/// The way to attach that is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AttachMethod {
    /// TCX, and clsact where the kernel has no TCX.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// Counters that are on or off together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    Protocols,
    Destination,
    Wire,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_nics: 1024,
            attach: AttachMethod::default(),
            pin: true,
            pin_dir: None,
            mount_bpffs: false,
            splits: vec![Split::Protocols, Split::Destination, Split::Wire],
        }
    }
}

impl Options {
    /// One slot per CPU and TAP must stay within what a map may have.
    const MAX_NICS: u32 = 65_536;

    pub(crate) fn check(&self) -> Result<(), String> {
        if (1..=Self::MAX_NICS).contains(&self.max_nics) {
            Ok(())
        } else {
            Err(format!("{} is not between 1 and {}", self.max_nics, Self::MAX_NICS))
        }
    }
}

#[cfg(feature = "ebpf")]
impl Options {
    pub(crate) fn pin_dir(&self, host: &Host) -> PathBuf {
        self.pin_dir.clone().unwrap_or_else(|| host.bpf_fs().join("vm-metrics"))
    }

    pub(crate) fn splits(&self) -> Splits {
        let bits = self.splits.iter().map(|split| match split {
            Split::Protocols => Splits::PROTOCOLS,
            Split::Destination => Splits::DESTINATION,
            Split::Wire => Splits::WIRE,
        });
        bits.fold(Splits::NONE, Splits::with)
    }
}
