//! Finds the TAPs of a tick that programs can be attached to.

use std::collections::HashMap;

use crate::model::{Batch, Device, DeviceId, Nic, VmSet};

/// The TAPs of the tick whose devices are there, by interface index.
pub(crate) type Present<'v> = HashMap<u32, PresentTap<'v>>;

/// A TAP of a VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresentTap<'v> {
    /// The position of its readings.
    pub(crate) at: usize,
    pub(crate) nic: &'v Nic,
    pub(crate) device: DeviceId,
}

/// The TAPs whose devices are there, by namespace.
pub(crate) fn present_taps<'v>(vms: &'v VmSet, batch: &Batch) -> HashMap<Option<u64>, Present<'v>> {
    let mut present: HashMap<_, Present> = HashMap::new();
    for ((at, nic), readings) in vms.nics().enumerate().zip(&batch.nics) {
        if let Some(Device { id: device, .. }) = readings.device.filter(|_| !readings.is_short_lived)
            && device.ifindex != 0
        {
            present.entry(nic.netns).or_default().insert(device.ifindex, PresentTap { at, nic, device });
        }
    }
    present
}
