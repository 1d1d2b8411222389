//! What a VM does, by the word of its VMM or of whoever runs it.

#![warn(missing_docs)]

use serde::Serialize;

/// Whether the vCPUs of a VM run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// The VMM waits for its configuration, or for the start.
    NotStarted,
    /// They run.
    Running,
    /// They are halted and can go on: paused, suspended, in a migration, stopped by an error of I/O.
    Paused,
    /// They do not go on without a reset: the guest has shut down or crashed, and its VMM is still there.
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
