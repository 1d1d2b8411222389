//! Network interfaces of a VM that have no device on this host.

use serde::{Deserialize, Serialize};

/// A network interface without numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
pub struct UnmonitoredNic {
    pub kind: UnmonitoredKind,
    /// Its PCI address, socket or device, or the hypervisor's own name for it.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UnmonitoredKind {
    Vfio,
    VhostVdpa,
    VhostUser,
    User,
    Socket,
    AfXdp,
    Macvtap,
}

impl UnmonitoredKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vfio => "vfio",
            Self::VhostVdpa => "vhost-vdpa",
            Self::VhostUser => "vhost-user",
            Self::User => "user",
            Self::Socket => "socket",
            Self::AfXdp => "af-xdp",
            Self::Macvtap => "macvtap",
        }
    }

    /// The reason why no device of the host counts it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Vfio => "the guest drives a PCI device, such as an SR-IOV function, past the host's kernel",
            Self::VhostVdpa => "a vDPA device serves the guest's queues past the host's kernel",
            Self::VhostUser => "another process serves the guest's queues, such as a switch in user space",
            Self::User => "the hypervisor itself is the network and talks through sockets of its own (slirp)",
            Self::Socket => "the hypervisor sends the frames over a socket",
            Self::AfXdp => "the hypervisor takes the frames from a device by AF_XDP",
            Self::Macvtap => {
                "the macvtap is in a network namespace that is not found or may not be entered (CAP_SYS_ADMIN)"
            }
        }
    }
}
