//! PCI addresses as people write them, and network controllers among PCI devices.

use std::fs;

use crate::host::Host;
use crate::model::{UnmonitoredKind, UnmonitoredNic};

/// `0000:3b:00.1`, of that, of `3b:00.1`, or of a path that ends with it.
pub fn pci_address(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').rsplit('/').next()?.to_ascii_lowercase();
    let full = if text.len() == "00:00.0".len() { format!("0000:{text}") } else { text };
    let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (domain, rest) = full.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    (is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1)).then_some(full)
}

/// The base class of network controllers, as sysfs writes it.
const NETWORK: &str = "0x02";

/// Whether the PCI device is a network controller; `None` when sysfs does not know the device.
fn is_network(host: &Host, address: &str) -> Option<bool> {
    let class = fs::read_to_string(host.pci_device(address).join("class")).ok()?;
    Some(class.starts_with(NETWORK))
}

/// Without PCI devices that are something else. One of which nothing is known is listed rather than left out.
pub fn networks(host: &Host, mut nics: Vec<UnmonitoredNic>) -> Vec<UnmonitoredNic> {
    let is_nic = |nic: &UnmonitoredNic| is_network(host, &nic.name).unwrap_or(true);
    nics.retain(|nic| nic.kind != UnmonitoredKind::Vfio || is_nic(nic));
    nics
}

/// The network controllers of an IOMMU group.
pub fn network_devices(host: &Host, group: &str) -> Vec<String> {
    let Ok(devices) = fs::read_dir(host.iommu_group(group)) else { return Vec::new() };
    let addresses = devices.flatten().map(|device| device.file_name().to_string_lossy().into_owned());
    addresses.filter(|address| is_network(host, address) == Some(true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["0000:3b:00.1", "3b:00.1", "3B:00.1", "/sys/bus/pci/devices/0000:3b:00.1/"] {
            assert_eq!(pci_address(text).as_deref(), Some("0000:3b:00.1"), "{text}");
        }
        for text in ["", "/", "0000:3b:00", "3b:00.10", "../../x", "0000:3b:0é.1", "c0ffee00-0000-0000"] {
            assert_eq!(pci_address(text), None, "{text}");
        }
    }
}
