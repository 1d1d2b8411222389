//! Parses the network interfaces of a domain. Pure.

use roxmltree::Node;

use super::xml::{child, devices};
use crate::model::{UnmonitoredKind, UnmonitoredNic, is_device_name};
use crate::sources::shortened;
use crate::sources::values::bounded::MAX_NICS;

/// Kinds of interfaces whose `<target dev=…>` is a device of the host.
const ON_DEVICE: &[&str] = &["network", "bridge", "ethernet", "direct"];

/// The devices of the host.
pub fn taps(domain: Node) -> Vec<String> {
    let on_device = devices(domain, "interface").filter(|interface| ON_DEVICE.contains(&kind(*interface)));
    on_device
        .filter_map(|interface| child(interface, "target")?.attribute("dev"))
        .filter(|device| is_device_name(device))
        .map(str::to_owned)
        .collect()
}

/// Interfaces without a device, and PCI devices that may be network controllers. One more than count at most.
pub fn unmonitored(domain: Node) -> Vec<UnmonitoredNic> {
    let interfaces = devices(domain, "interface").filter_map(of_interface);
    let is_pci = |device: &Node| device.attribute("type") == Some("pci");
    let devices = devices(domain, "hostdev").filter(is_pci).filter_map(of_pci);
    interfaces.chain(devices).take(MAX_NICS + 1).collect()
}

fn of_interface(interface: Node) -> Option<UnmonitoredNic> {
    let source = source(interface);
    let attribute = |name| source.and_then(|source| source.attribute(name));
    // libvirt calls QEMU's backend by its own name for the device.
    let backend = || {
        let alias = child(interface, "alias").and_then(|alias| alias.attribute("name"));
        alias.map(|alias| format!("host{alias}"))
    };
    let is_passt = child(interface, "backend").and_then(|backend| backend.attribute("type")) == Some("passt");
    let (kind, name) = match kind(interface) {
        "hostdev" => return of_pci(interface),
        "vhostuser" => (UnmonitoredKind::VhostUser, attribute("path").map(str::to_owned)),
        "vdpa" => (
            UnmonitoredKind::VhostVdpa,
            attribute("dev").and_then(|dev| dev.rsplit('/').next()).map(str::to_owned),
        ),
        "user" if !is_passt => (UnmonitoredKind::User, None),
        "user" | "server" | "client" | "mcast" | "udp" => (UnmonitoredKind::Socket, None),
        _ => return None,
    };
    let name = name.or_else(backend).unwrap_or_else(|| "?".to_owned());
    Some(UnmonitoredNic { kind, name: shortened(&name) })
}

/// By the address in `<source>`.
fn of_pci(device: Node) -> Option<UnmonitoredNic> {
    let address = child(source(device)?, "address")?;
    let number = |name| u32::from_str_radix(address.attribute(name)?.trim_start_matches("0x"), 16).ok();
    let (domain, bus) = (number("domain").unwrap_or_default(), number("bus")?);
    let name = format!("{domain:04x}:{bus:02x}:{:02x}.{:x}", number("slot")?, number("function")?);
    Some(UnmonitoredNic { kind: UnmonitoredKind::Vfio, name })
}

/// The actual type, where the interface is of a libvirt network.
fn kind<'a>(interface: Node<'a, '_>) -> &'a str {
    let actual = child(interface, "actual").and_then(|actual| actual.attribute("type"));
    actual.or(interface.attribute("type")).unwrap_or_default()
}

fn source<'a, 'input>(interface: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
    let actual = child(interface, "actual").and_then(|actual| child(actual, "source"));
    actual.or_else(|| child(interface, "source"))
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;

    fn found(devices: &str) -> (Vec<String>, Vec<String>) {
        let text = format!("<domain><devices>{devices}</devices></domain>");
        let document = Document::parse(&text).unwrap();
        let domain = document.root_element();
        let name = |nic: UnmonitoredNic| format!("{} {}", nic.kind.as_str(), nic.name);
        (taps(domain), unmonitored(domain).into_iter().map(name).collect())
    }

    #[test]
    fn interfaces_without_a_device_are_unmonitored() {
        const ADDRESS: &str =
            "<source><address type='pci' domain='0x0000' bus='0x3b' slot='0x10' function='0x2'/></source>";
        for (devices, expected) in [
            (
                "<interface type='vhostuser'><source type='unix' path='/run/a.sock' mode='server'/></interface>",
                "vhost-user /run/a.sock",
            ),
            ("<interface type='user'><alias name='net1'/></interface>", "user hostnet1"),
            (
                "<interface type='user'><backend type='passt'/><alias name='net1'/></interface>",
                "socket hostnet1",
            ),
            ("<interface type='udp'/>", "socket ?"),
            (
                "<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>",
                "vhost-vdpa vhost-vdpa-0",
            ),
            (&format!("<interface type='hostdev' managed='yes'>{ADDRESS}</interface>"), "vfio 0000:3b:10.2"),
            (
                &format!(
                    "<interface type='network'><source network='n'/><actual type='hostdev'>{ADDRESS}</actual></interface>"
                ),
                "vfio 0000:3b:10.2",
            ),
            (&format!("<hostdev mode='subsystem' type='pci'>{ADDRESS}</hostdev>"), "vfio 0000:3b:10.2"),
        ] {
            assert_eq!(found(devices), (vec![], vec![expected.to_owned()]), "{devices}");
        }
    }

    #[test]
    fn interfaces_on_a_device_are_taps() {
        for kind in ["network", "bridge", "ethernet", "direct"] {
            let devices = format!("<interface type='{kind}'><target dev='vnet0'/></interface>");
            assert_eq!(found(&devices), (vec!["vnet0".to_owned()], vec![]));
        }
        let none = "<interface type='null'/><hostdev mode='subsystem' type='usb'/><hostdev type='pci'/>";
        assert_eq!(found(none), (vec![], vec![]));
        let actual = "<interface type='network'><target dev='vnet0'/><actual type='bridge'/></interface>";
        assert_eq!(found(actual).0, ["vnet0"]);
    }

    #[test]
    fn a_flood_of_interfaces_is_cut() {
        assert_eq!(found(&"<interface type='user'/>".repeat(1000)).1.len(), MAX_NICS + 1);
    }
}
