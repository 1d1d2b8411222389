//! Claims of VMs to ids, and their order.

use serde::{Deserialize, Serialize};

/// Who claims an id, the first claim first. Between VMs of one standing, or of two users, no rank decides.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A source of the operator names the VM.
    Operator,
    /// The process of a trusted user describes itself.
    Trusted,
    /// The process of another user describes itself.
    User(Option<u32>),
}

/// An id of a listing, and the standing of its claim.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
pub struct IdClaim {
    pub id: String,
    pub standing: Standing,
}

impl Standing {
    pub fn is_user(self) -> bool {
        matches!(self, Self::User(_))
    }

    /// Of a claim: that of any other user comes neither before nor after it.
    pub fn rank(self) -> Self {
        if self.is_user() { Self::User(None) } else { self }
    }

    /// Whether an id of this standing is kept from the other.
    pub fn binds(self, other: Self) -> bool {
        self == other || self.rank() < other.rank()
    }
}
