//! The network devices that a process holds, and the look that finds them.

use std::io;

use super::SourceError;
use super::observer::Observer;
use super::taps::{DeviceDescriptor, Taps, taps};
use crate::sources::process::{ProcessDir, ReadError};

/// The network devices that a process holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    start_ticks: u64,
    /// When the look began.
    pub descriptors: Option<u64>,
    pub uid: Option<u32>,
    pub is_trusted: bool,
    /// An error where this daemon may not know it.
    pub taps: Result<Taps, SourceError>,
}

/// The devices of a VM's process, and the known ones that it still holds.
#[derive(Debug)]
pub struct HoldingsUpdate {
    pub nics: Holdings,
    pub still: Vec<DeviceDescriptor>,
}

impl Holdings {
    /// Goes on with `progress`, where that is of the same process and user.
    pub fn read(
        process: &ProcessDir,
        observer: &Observer,
        progress: Option<Self>,
    ) -> Result<Self, ReadError> {
        let uid = process.uid();
        let start_ticks = process.stat()?.start_ticks;
        let progress = progress.filter(|progress| progress.start_ticks == start_ticks && progress.uid == uid);
        let descriptors =
            progress.as_ref().map_or_else(|| process.descriptor_count(), |progress| progress.descriptors);
        let before = progress.and_then(|progress| progress.taps.ok());
        let taps = match taps(process, uid, &observer.devices, before, observer.time(uid)) {
            Ok(taps) => Ok(taps),
            Err(ReadError::Failed(error)) if error.io_kind() == Some(io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            Err(read_error) => return Err(read_error),
        };
        let is_trusted = observer.trust.is_trusted(uid);
        Ok(Self { start_ticks, descriptors, uid, is_trusted, taps })
    }

    /// Whether the look at its descriptors has not ended.
    pub fn is_partial(&self) -> bool {
        self.taps.as_ref().is_ok_and(|taps| taps.rest.is_some())
    }
}
