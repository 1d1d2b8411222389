//! Claims of VMs to ids, and their order.

use serde::{Deserialize, Serialize};

use super::MergedVm;

/// Whose claim to an id comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimRank {
    /// A source of the operator names the VM.
    Operator,
    /// The process of a trusted user describes itself.
    Trusted,
    /// The process of another user describes itself.
    Stranger,
}

/// Who claims an id. Between VMs of one standing no rank decides.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Operator,
    Trusted,
    User(Option<u32>),
}

/// An id of a listing, and the standing of its claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdClaim {
    pub id: String,
    pub standing: Standing,
}

impl Standing {
    pub fn of(vm: &MergedVm) -> Self {
        match vm.claim {
            ClaimRank::Operator => Self::Operator,
            ClaimRank::Trusted => Self::Trusted,
            ClaimRank::Stranger => Self::User(vm.info.uid),
        }
    }

    /// Whether an id of this standing is kept from the other.
    pub fn binds(self, other: Self) -> bool {
        self == other || self < other && !matches!((self, other), (Self::User(_), Self::User(_)))
    }
}
