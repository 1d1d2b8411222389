//! Parses the command line of Cloud Hypervisor.

use super::VmArgs;
use super::identity::{Identity, stem};
use super::long_options::LongOptions;
use super::size::{number, size};
use crate::model::{UnmonitoredKind, UnmonitoredNic};
use crate::sources::values::pci::pci_address;
use crate::sources::values::uuid;

const DEFAULT_VCPUS: u32 = 1;
const DEFAULT_MEMORY: u64 = 512 << 20;

/// With one of these the command line describes the VM. Without, it is described over the API or by a
/// snapshot.
const PAYLOADS: &[&str] = &["kernel", "firmware", "igvm"];

pub fn parse(argv: &[String]) -> Option<VmArgs> {
    let options = LongOptions::new(argv);
    let short = argv.get(1).is_some_and(|word| matches!(word.as_str(), "-V" | "-h"));
    if short || options.has("version") || options.has("help") {
        return None;
    }
    let described_here = PAYLOADS.iter().any(|payload| options.has(payload));
    let api_socket = options.value("api-socket").and_then(socket_path);
    Some(VmArgs {
        identity: identity(&options),
        vcpus: described_here.then(|| vcpus(&options)).flatten(),
        max_vcpus: described_here.then(|| max_vcpus(&options)).flatten(),
        memory_bytes: described_here.then(|| memory(&options)).flatten(),
        unmonitored: unmonitored(&options),
        taps: options.values("net").filter_map(|net| get(net, "tap")).collect(),
        api_socket,
        ..VmArgs::default()
    })
}

fn identity(options: &LongOptions<'_>) -> Identity {
    let platform = options.value("platform");
    let uuid = platform.and_then(|platform| get(platform, "uuid").or_else(|| get(platform, "system_uuid")));
    // Where libvirt hands on the socket, it names the VM's events only.
    let events = || options.value("event-monitor").and_then(|monitor| get(monitor, "path"));
    let api_socket = options.value("api-socket").and_then(socket_path).or_else(events);
    Identity {
        uuid: uuid.and_then(|uuid| uuid::given(&uuid)),
        paths: api_socket.clone().into_iter().collect(),
        common_name: api_socket.as_deref().and_then(stem),
        api_socket,
        ..Identity::default()
    }
}

fn unmonitored(options: &LongOptions<'_>) -> Vec<UnmonitoredNic> {
    let is_vhost_user = |net: &&str| get(net, "vhost_user").is_some_and(|on| matches!(&*on, "true" | "on"));
    let sockets = options.values("net").filter(is_vhost_user);
    let sockets = sockets.map(|net| (UnmonitoredKind::VhostUser, get(net, "socket")));
    let vdpa = options.values("vdpa").map(|vdpa| {
        let node = get(vdpa, "path").and_then(|path| path.rsplit('/').next().map(str::to_owned));
        (UnmonitoredKind::VhostVdpa, node)
    });
    let vfio = options
        .values("device")
        .map(|device| (UnmonitoredKind::Vfio, get(device, "path").and_then(|path| pci_address(&path))));
    let all = sockets.chain(vdpa).chain(vfio);
    all.filter_map(|(kind, name)| Some(UnmonitoredNic { kind, name: name? })).collect()
}

fn vcpus(options: &LongOptions<'_>) -> Option<u32> {
    match options.value("cpus").and_then(|cpus| get(cpus, "boot")) {
        Some(boot) => number(&boot).and_then(|boot| u32::try_from(boot).ok()),
        None => Some(DEFAULT_VCPUS),
    }
}

/// How many vCPUs there may be, where some can be plugged in over the API.
fn max_vcpus(options: &LongOptions<'_>) -> Option<u32> {
    let most = options.value("cpus").and_then(|cpus| get(cpus, "max")).and_then(|most| number(&most));
    most.and_then(|most| u32::try_from(most).ok())
        .filter(|most| vcpus(options).is_some_and(|boot| *most > boot))
}

/// The memory of all zones with plugged memory. `hotplug_size` is only room for more.
fn memory(options: &LongOptions<'_>) -> Option<u64> {
    let memory = options.value("memory").unwrap_or_default();
    let size_of = |text: &str, key, default| get(text, key).map_or(Some(default), |text| size(&text));
    let base =
        size_of(memory, "size", DEFAULT_MEMORY)?.checked_add(size_of(memory, "hotplugged_size", 0)?)?;
    options.values("memory-zone").try_fold(base, |sum, zone| {
        sum.checked_add(size_of(zone, "size", 0)?)?.checked_add(size_of(zone, "hotplugged_size", 0)?)
    })
}

/// `None` when another process has opened it and passed the descriptor.
fn socket_path(socket: &str) -> Option<String> {
    if get(socket, "fd").is_some() {
        return None;
    }
    Some(get(socket, "path").unwrap_or_else(|| socket.to_owned()))
}

/// The value of a key in `key=value,…`. Commas within brackets and quotes do not count; quotes are taken
/// away.
fn get(text: &str, key: &str) -> Option<String> {
    let mut pieces = vec![String::new()];
    let (mut brackets, mut quoted) = (0_u32, false);
    for character in text.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                continue;
            }
            ',' if brackets == 0 && !quoted => {
                pieces.push(String::new());
                continue;
            }
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(character);
        }
    }
    let values = pieces.iter().rev().filter_map(|piece| piece.split_once('='));
    values
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::argv;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn vm(line: &str) -> VmArgs {
        parse(&argv(&format!("cloud-hypervisor {line}"))).unwrap()
    }

    #[test]
    fn the_readme_example() {
        let found = vm("--kernel ./linux-cloud-hypervisor/arch/x86/boot/compressed/vmlinux.bin --console off
            --serial tty --disk path=focal-server-cloudimg-amd64.raw --cmdline console=ttyS0
            --cpus boot=4 --memory size=1024M --net tap=,mac=,ip=,mask=");
        assert_eq!(found, VmArgs { vcpus: Some(4), memory_bytes: Some(GIB), ..VmArgs::default() });
    }

    #[test]
    fn cpus_and_memory() {
        for (line, vcpus, memory) in [
            ("", Some(1), Some(512 << 20)),
            ("--cpus boot=2,max=4 --memory size=1G,hotplug_size=8G", Some(2), Some(GIB)),
            ("--cpus=boot=2 --memory=size=1G,hotplugged_size=512M", Some(2), Some(3 * GIB / 2)),
            ("--cpus max=4,boot=3,affinity=[0@[0-3],1@[4,boot=9]] -v", Some(3), Some(512 << 20)),
            ("--cpus boot=2 -vv", Some(2), Some(512 << 20)),
            ("--cpus boot=x --memory size=y", None, None),
            (
                "--memory size=0 --memory-zone id=a,size=1G id=b,size=2G,hotplugged_size=1G",
                Some(1),
                Some(4 * GIB),
            ),
            ("--memory size=0 --memory-zone id=a,size=1G --memory-zone id=b,size=1G", Some(1), Some(2 * GIB)),
            ("--memory size=2147483648", Some(1), Some(2 * GIB)),
            ("--memory size=1T", Some(1), Some(1 << 40)),
        ] {
            let found = vm(&format!("{line} --kernel k"));
            assert_eq!((found.vcpus, found.memory_bytes), (vcpus, memory), "{line}");
        }
    }

    #[test]
    fn vcpus_that_can_be_plugged_in() {
        for (cpus, most) in [
            ("boot=2,max=4", Some(4)),
            ("max=2,boot=2", None),
            ("max=4", Some(4)),
            ("boot=2", None),
            ("boot=2,max=x", None),
        ] {
            assert_eq!(vm(&format!("--cpus {cpus} --kernel k")).max_vcpus, most, "{cpus}");
        }
    }

    #[test]
    fn a_vm_configured_elsewhere_has_no_sizes() {
        for line in
            ["--api-socket /tmp/a.sock", "--restore source_url=file:///snap", "--api-socket a --cpus boot=2"]
        {
            let found = vm(line);
            assert_eq!((found.vcpus, found.memory_bytes), (None, None), "{line}");
        }
    }

    #[test]
    fn sockets() {
        for (line, socket) in [
            ("", None),
            ("--api-socket fd=5", None),
            ("--api-socket /run/vm/web.sock", Some("/run/vm/web.sock")),
            ("--api-socket=path=web.sock", Some("web.sock")),
        ] {
            assert_eq!(vm(line).api_socket.as_deref(), socket, "{line}");
        }
    }

    #[test]
    fn taps() {
        let found = vm("--net tap=t0,mac=12:34:56:78:90:ab tap=t1 --net fd=3,mac=a --net mac=b,tap=\"t2\"");
        assert_eq!(found.taps, ["t0", "t1", "t2"]);
    }

    #[test]
    fn what_cannot_be_counted() {
        let found = vm("--net tap=t0 vhost_user=true,socket=/tmp/vhu.sock,num_queues=4 --net vhost_user=false
            --vdpa path=/dev/vhost-vdpa-0,num_queues=1 --device path=/sys/bus/pci/devices/0000:01:00.0/ path=/tmp/x");
        let found: Vec<_> =
            found.unmonitored.iter().map(|nic| (nic.kind.as_str(), nic.name.as_str())).collect();
        let expected =
            [("vhost-user", "/tmp/vhu.sock"), ("vhost-vdpa", "vhost-vdpa-0"), ("vfio", "0000:01:00.0")];
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn round_trip(
            boot in 1..255_u32,
            more in 0..9_u32,
            mebibytes in 1..1_000_000_u64,
            taps in prop::collection::vec("[a-z0-9]{1,15}", 0..4),
            uuid in "[0-9a-f-]{1,36}",
        ) {
            let mut line = vec![
                "cloud-hypervisor".to_owned(),
                format!("--cpus=max={},boot={boot}", boot + more),
                "--memory".to_owned(), format!("shared=on,size={mebibytes}M"),
                "--platform".to_owned(), format!("uuid={uuid}"),
            ];
            for tap in &taps {
                line.extend(["--net".to_owned(), format!("tap={tap},mac=aa:bb")]);
            }
            line.extend(["--firmware".to_owned(), "fw".to_owned()]);
            let expected = VmArgs {
                identity: Identity { uuid: Some(uuid), ..Identity::default() },
                vcpus: Some(boot),
                max_vcpus: (more > 0).then_some(boot + more),
                memory_bytes: Some(mebibytes << 20),
                taps,
                ..VmArgs::default()
            };
            prop_assert_eq!(parse(&line), Some(expected));
        }
    }
}
