//! The state of a VM, according to its VMM or its orchestrator.

#![warn(missing_docs)]

use serde::Serialize;

/// The state of a VM's vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// The VMM waits for its configuration, or for the start.
    NotStarted,
    /// They run.
    Running,
    /// They are halted and can continue: paused, suspended, in a migration, stopped by an I/O error.
    Paused,
    /// They need a reset to continue: the guest has shut down or crashed, and its VMM still runs.
    Stopped,
}

impl VmState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::NotStarted, Self::Running, Self::Paused, Self::Stopped];

    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not-started",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
