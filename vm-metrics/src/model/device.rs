//! Identifies a network device for as long as it lives.

use std::hash::{Hash, Hasher};

use serde::Serialize;

/// A device, under any name. Only `net` makes one.
///
/// Two are the same device when their generations are equal. A namespace and an index alone do not tell: the kernel uses
/// both again, and where only a name can be read, the index becomes known later.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceId {
    /// The inode of its network namespace, when it is not that of this process.
    pub netns: Option<u64>,
    /// 0 while only its name is known.
    pub ifindex: u32,
    /// Another number for each device that was found. It grows when the kernel reports that the device was deleted.
    pub generation: u64,
}

impl PartialEq for DeviceId {
    fn eq(&self, other: &Self) -> bool {
        self.generation == other.generation
    }
}

impl Eq for DeviceId {}

impl Hash for DeviceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.generation.hash(state);
    }
}

/// A device as it was found in a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    pub kind: NicKind,
    /// A number that the kernel gives to nothing else: to the device in the namespace of this process, elsewhere to its
    /// namespace. `None` where it gives none.
    pub birth: Option<u64>,
    /// Whether it is certainly younger than this process.
    pub is_young: bool,
}

/// The kind of device on the host. It decides which direction of the device is the guest's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "daemon", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NicKind {
    /// The device receives the guest's output.
    #[default]
    Tap,
    /// The device sends the guest's output to the underlying network.
    Macvtap,
}

impl NicKind {
    /// As it is in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

/// Why a device is not where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceExit {
    Deleted,
    /// It lives on in another network namespace, with this index; 0 where the kernel does not say it.
    Moved {
        ifindex: u32,
    },
}
