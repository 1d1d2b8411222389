//! The two directions in which frames pass a TAP, with the program of each.

use aya::programs::TcAttachType;
use vm_metrics_common::names;

/// Host perspective, as the kernel names its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

pub(crate) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Ingress => names::PROGRAM_INGRESS,
            Self::Egress => names::PROGRAM_EGRESS,
        }
    }

    pub(crate) fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}
