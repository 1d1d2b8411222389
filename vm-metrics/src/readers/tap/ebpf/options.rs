//! The section `[readers.tap_ebpf]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

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

impl Default for Options {
    fn default() -> Self {
        Self { max_nics: 1024, attach: AttachMethod::default(), pin: true, pin_dir: None, mount_bpffs: false }
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
}
