//! Parses the network backends of QEMU's command line.

use std::collections::HashMap;

use super::VmArgs;
use super::qemu_options::{Keys, get, values};
use crate::model::{UnmonitoredKind, UnmonitoredNic};
use crate::sources::values::pci::pci_address;

/// The VM of these options, with nothing but its NICs.
pub fn with_nics(options: &[(&str, &str)]) -> VmArgs {
    let chardevs = chardevs(options);
    let mut net = VmArgs::default();
    for keys in values(options, &["netdev", "nic", "net"], "type") {
        match get(&keys, "type") {
            Some("tap") => net.taps.extend(get(&keys, "ifname").map(str::to_owned)),
            Some(backend) => {
                let Some((kind, name)) = unmonitored(backend, &keys, &chardevs) else { continue };
                let name = name.or_else(|| get(&keys, "id").map(str::to_owned));
                // A position replaces a missing name.
                let name = name.unwrap_or_else(|| format!("{backend}{}", net.unmonitored.len()));
                net.unmonitored.push(UnmonitoredNic { kind, name });
            }
            None => {}
        }
    }
    for keys in values(options, &["device"], "driver") {
        let is_vfio = get(&keys, "driver").is_some_and(|driver| driver.starts_with("vfio-pci"));
        let device = get(&keys, "host").or_else(|| get(&keys, "sysfsdev")).filter(|_| is_vfio);
        let name = device.and_then(pci_address);
        net.unmonitored.extend(name.map(|name| UnmonitoredNic { kind: UnmonitoredKind::Vfio, name }));
    }
    net
}

/// The path of each by its id, of which the first counts.
fn chardevs(options: &[(&str, &str)]) -> HashMap<String, Option<String>> {
    let mut chardevs = HashMap::new();
    for keys in values(options, &["chardev"], "backend") {
        let Some(id) = get(&keys, "id") else { continue };
        chardevs.entry(id.to_owned()).or_insert_with(|| get(&keys, "path").map(str::to_owned));
    }
    chardevs
}

/// The kind of an unmonitored backend.
pub fn netdev_kind(backend: &str) -> Option<UnmonitoredKind> {
    Some(match backend {
        "user" => UnmonitoredKind::User,
        "vhost-user" => UnmonitoredKind::VhostUser,
        "vhost-vdpa" => UnmonitoredKind::VhostVdpa,
        "af-xdp" => UnmonitoredKind::AfXdp,
        "dgram" | "l2tpv3" | "netmap" | "passt" | "socket" | "stream" | "vde" => UnmonitoredKind::Socket,
        _ => return None,
    })
}

/// The name is `None` where the id must do.
fn unmonitored(
    backend: &str,
    keys: &Keys,
    chardevs: &HashMap<String, Option<String>>,
) -> Option<(UnmonitoredKind, Option<String>)> {
    let kind = netdev_kind(backend)?;
    let name = match kind {
        UnmonitoredKind::VhostUser => get(keys, "chardev").and_then(|chardev| chardevs.get(chardev)?.clone()),
        // A descriptor without a name is known from the process.
        UnmonitoredKind::VhostVdpa => {
            let path = get(keys, "vhostdev").filter(|path| !path.starts_with("/dev/fdset/"));
            path.and_then(|path| path.rsplit('/').next()).map(str::to_owned)
        }
        UnmonitoredKind::AfXdp => get(keys, "ifname").map(str::to_owned),
        _ => None,
    };
    Some((kind, name))
}

#[cfg(test)]
mod tests {
    use super::super::argv;
    use super::super::qemu_options::options;
    use super::*;

    #[test]
    fn what_cannot_be_counted() {
        for (line, kind, name) in [
            ("-netdev user,id=n0,hostfwd=tcp::2222-:22", "user", "n0"),
            ("-nic user,model=virtio", "user", "user0"),
            (
                "-chardev socket,id=c0,path=/run/ovs/a.sock,server=on -netdev vhost-user,id=n,chardev=c0",
                "vhost-user",
                "/run/ovs/a.sock",
            ),
            ("-chardev socket,id=c0,fd=3 -netdev type=vhost-user,id=n,chardev=c0", "vhost-user", "n"),
            (
                r#"-chardev socket,id=charnet0,path=/v.sock -netdev {"type":"vhost-user","chardev":"charnet0","id":"hostnet0"}"#,
                "vhost-user",
                "/v.sock",
            ),
            ("-netdev vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n", "vhost-vdpa", "vhost-vdpa-0"),
            (
                r#"-netdev {"type":"vhost-vdpa","vhostdev":"/dev/vhost-vdpa-1","queues":2,"id":"h"}"#,
                "vhost-vdpa",
                "vhost-vdpa-1",
            ),
            ("-netdev vhost-vdpa,vhostdev=/dev/fdset/0,id=hostnet0", "vhost-vdpa", "hostnet0"),
            ("-netdev af-xdp,id=n,ifname=eth7,queues=1", "af-xdp", "eth7"),
            ("-netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/passt_1.socket", "socket", "n"),
            ("-device vfio-pci,host=0000:3B:00.1", "vfio", "0000:3b:00.1"),
            ("-device vfio-pci-nohotplug,host=03:00.0,id=h", "vfio", "0000:03:00.0"),
            ("-device vfio-pci,sysfsdev=/sys/bus/pci/devices/0001:03:00.0", "vfio", "0001:03:00.0"),
            (
                r#"-device {"driver":"vfio-pci","host":"0000:03:10.2","id":"hostdev0","bus":"pci.5"}"#,
                "vfio",
                "0000:03:10.2",
            ),
        ] {
            let found = with_nics(&options(&argv(&format!("kvm {line}")))).unmonitored;
            let found: Vec<_> = found.iter().map(|nic| (nic.kind.as_str(), nic.name.as_str())).collect();
            assert_eq!(found, [(kind, name)], "{line}");
        }
    }

    #[test]
    fn taps_and_other_backends_are_not_listed() {
        for line in [
            "-netdev tap,fd=3,id=n1 -netdev bridge,br=br0,id=n2 -nic none -device virtio-net-pci,netdev=n1",
            "-netdev hubport,hubid=1,id=h -netdev {\"type\":7} -netdev {broken -netdev ,",
            "-device vfio-pci,sysfsdev=/sys/bus/mdev/devices/c0ffee -device vfio-pci -device e1000,host=03:00.0",
        ] {
            assert_eq!(with_nics(&options(&argv(&format!("kvm {line}")))).unmonitored, [], "{line}");
        }
    }
}
