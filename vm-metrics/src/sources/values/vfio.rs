//! Finds the network controllers among PCI devices of VFIO groups.

use std::fs;

use crate::host::Host;

/// The base class of network controllers, as sysfs writes it.
const NETWORK: &str = "0x02";

/// Whether the PCI device is a network controller; `None` when sysfs does not know the device.
pub fn is_network(host: &Host, address: &str) -> Option<bool> {
    let class = fs::read_to_string(host.pci_device(address).join("class")).ok()?;
    Some(class.starts_with(NETWORK))
}

/// The network controllers of an IOMMU group.
pub fn network_devices(host: &Host, group: &str) -> Vec<String> {
    let Ok(devices) = fs::read_dir(host.iommu_group(group)) else { return Vec::new() };
    let addresses = devices.flatten().map(|device| device.file_name().to_string_lossy().into_owned());
    addresses.filter(|address| is_network(host, address) == Some(true)).collect()
}
