//! Netlink gives the numbers of sysfs, for the right device.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vm_metrics::Manager;
use vm_metrics::{ComponentRun, Health, NicSource, NicStats};
use vm_metrics::{InstanceInfo, Nic};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::{Tap, TapOptions};

use crate::lab::{manager_with, nics};

const NO_EBPF: &str = "retention = \"0s\"\n[readers.tap_ebpf]\nenabled = false\n";
const SYSFS_ONLY: &str =
    "retention = \"0s\"\n[readers.tap_ebpf]\nenabled = false\n[readers.tap_netlink]\nenabled = false\n";

fn create(taps: usize) -> Vec<Tap> {
    (0..taps).map(|i| Tap::create_up(&format!("vmt{i}"), TapOptions::default()).unwrap()).collect()
}

fn names(taps: &[Tap]) -> Vec<&str> {
    taps.iter().map(Tap::name).collect()
}

/// Makes different traffic for each direction and index. Offered frames are dropped, left, or read.
fn traffic(tap: &Tap, index: usize) {
    for _ in 0..=index % 7 {
        tap.write_frame(&Frame::from_guest().udp4(100 + index)).unwrap();
    }
    let host = PacketSocket::bind(tap.name()).unwrap();
    for _ in 0..index % 5 {
        host.send(&Frame::to_guest().udp4(700 + index)).unwrap();
    }
    let mut buffer = [0; 2048];
    for _ in 0..index % 4 {
        tap.read_frame(&mut buffer).unwrap();
    }
    tap.link().down().unwrap();
    for _ in 0..index % 3 {
        // The device refuses this frame and counts it as dropped.
        assert!(tap.write_frame(&Frame::from_guest().udp4(50)).is_err());
    }
    tap.link().up().unwrap();
}

fn sent(tap: &Tap, frames: usize) {
    for _ in 0..frames {
        tap.write_frame(&Frame::from_guest().udp4(300)).unwrap();
    }
}

fn one(manager: &mut Manager) -> (NicSource, Option<u32>, Option<u64>) {
    let nic = nics(manager).remove(0);
    (nic.source, nic.ifindex, nic.tx.packets)
}

fn part<'p>(parts: &'p [ComponentRun], name: &str) -> &'p ComponentRun {
    parts.iter().find(|part| part.name == name).unwrap()
}

/// Reads the TAPs by netlink and by sysfs. Only the fields of one side may differ.
fn both(taps: &[Tap]) -> Vec<NicStats> {
    let mut by_sysfs = nics(&mut manager_with(&names(taps), SYSFS_ONLY));
    for nic in &mut by_sysfs {
        assert_eq!(nic.source, NicSource::Sysfs, "{nic:?}");
        nic.source = NicSource::Netlink;
        nic.found = None;
    }
    let mut by_netlink = nics(&mut manager_with(&names(taps), NO_EBPF));
    // Each manager has ids of its own for the devices.
    by_netlink.iter_mut().for_each(|nic| nic.found = None);
    assert_eq!(by_netlink, by_sysfs);
    by_netlink
}

#[test]
fn netlink_and_sysfs_agree() {
    let _namespace = NetNs::enter().unwrap();
    let taps = create(12);
    taps.iter().enumerate().for_each(|(index, tap)| traffic(tap, index));
    for (tap, nic) in taps.iter().zip(both(&taps)) {
        let device = tap.link().counters().unwrap();
        assert_eq!((nic.rx.bytes, nic.rx.packets), (Some(device.tx_bytes), Some(device.tx_packets)));
        assert_eq!((nic.tx.bytes, nic.tx.packets), (Some(device.rx_bytes), Some(device.rx_packets)));
        assert_eq!((nic.rx.dropped, nic.tx.dropped), (Some(device.tx_dropped), Some(device.rx_dropped)));
        assert_eq!(nic.ifindex, Some(tap.ifindex()));
    }
}

#[test]
fn many_taps_are_read_in_one_tick() {
    let _namespace = NetNs::enter().unwrap();
    let taps = create(300);
    taps.iter().enumerate().for_each(|(index, tap)| sent(tap, index % 11));
    let packets: Vec<_> = both(&taps).iter().map(|nic| nic.tx.packets.unwrap()).collect();
    assert_eq!(packets, (0..300).map(|index| index % 11).collect::<Vec<_>>());
}

#[test]
fn a_replaced_tap_starts_at_zero() {
    let _namespace = NetNs::enter().unwrap();
    let mut manager = manager_with(&["vmt0"], NO_EBPF);
    assert_eq!(one(&mut manager), (NicSource::None, None, None));
    for frames in [50, 2, 7] {
        let tap = create(1).remove(0);
        sent(&tap, frames);
        let index = Some(tap.ifindex());
        assert_eq!(one(&mut manager), (NicSource::Netlink, index, Some(frames as u64)));
    }
    assert_eq!(one(&mut manager), (NicSource::None, None, None));
}

#[test]
fn swapped_names_keep_the_right_numbers() {
    [NO_EBPF, SYSFS_ONLY].into_iter().for_each(change_hands);
}

fn change_hands(tables: &str) {
    let _namespace = NetNs::enter().unwrap();
    let taps = create(2);
    sent(&taps[0], 10);
    sent(&taps[1], 20);
    let mut manager = manager_with(&["vmt0", "vmt1"], tables);
    let mut packets = || -> Vec<_> { nics(&mut manager).iter().map(|nic| nic.tx.packets).collect() };
    assert_eq!(packets(), [Some(10), Some(20)]);

    let mut links = [taps[0].link().clone(), taps[1].link().clone()];
    links.iter().for_each(|link| link.down().unwrap());
    links[0].rename("between").unwrap();
    assert_eq!(packets(), [None, Some(20)]);
    links[1].rename("vmt0").unwrap();
    assert_eq!(packets(), [Some(0), None], "the other VM's count is not this one's");
    links[0].rename("vmt1").unwrap();
    links.iter().for_each(|link| link.up().unwrap());
    sent(&taps[0], 3);
    sent(&taps[1], 5);
    assert_eq!(packets(), [Some(5), Some(3)]);
}

#[test]
fn other_devices_do_not_change_the_numbers() {
    const TICKS: u64 = 300;
    let _namespace = NetNs::enter().unwrap();
    let taps = create(150);
    let mut manager = manager_with(&names(&taps), NO_EBPF);
    let over = AtomicBool::new(false);
    let came = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // The daemon of another test may hold the former device, whose name is in use for that moment.
                let other = Tap::create("other", TapOptions::default());
                came.fetch_add(u64::from(other.is_ok()), Ordering::Relaxed);
            }
        });
        for tick in 1..=TICKS {
            taps.iter().for_each(|tap| sent(tap, 1));
            for nic in nics(&mut manager) {
                assert_eq!(nic.tx.packets, Some(tick), "{nic:?}");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(came.into_inner() > 0);
}

#[test]
fn a_missing_device_is_reported_once() {
    let _namespace = NetNs::enter().unwrap();
    let _tap = create(1);
    let snapshot = manager_with(&["vmt0", "missing"], NO_EBPF).collect();
    let (netlink, sysfs) =
        (part(&snapshot.components, "tap_netlink"), part(&snapshot.components, "tap_sysfs"));
    assert_eq!((netlink.health.state, netlink.items, netlink.errors), (Health::Healthy, 1, 0));
    assert_eq!((sysfs.health.state, sysfs.items, sysfs.errors), (Health::Degraded, 0, 1));
    assert!(sysfs.health.reason.starts_with("missing: no such device"), "{}", sysfs.health.reason);
}

#[test]
fn another_hosts_files_exclude_local_devices() {
    let _namespace = NetNs::enter().unwrap();
    let taps = create(1);
    sent(&taps[0], 3);
    let sys = tempfile::tempdir().unwrap();
    let device = sys.path().join("class/net/vmt0");
    std::fs::create_dir_all(device.join("statistics")).unwrap();
    std::fs::write(device.join("ifindex"), "77\n").unwrap();
    std::fs::write(device.join("tun_flags"), "0x1002\n").unwrap();
    for direction in ["rx", "tx"] {
        for counter in ["bytes", "packets", "errors", "dropped"] {
            std::fs::write(device.join(format!("statistics/{direction}_{counter}")), "5\n").unwrap();
        }
    }
    let mut manager = manager_with(&["vmt0"], &format!("[host]\nsys = {:?}\n", sys.path()));
    assert_eq!(one(&mut manager), (NicSource::Sysfs, Some(77), Some(5)));
    for name in ["tap_netlink", "tap_ebpf"] {
        assert_eq!(part(&manager.collect().components, name).health.state, Health::Unsupported, "{name}");
    }
}

/// A program that embeds the library may list such a name.
#[test]
fn an_invalid_name_hides_no_other_device() {
    let _namespace = NetNs::enter().unwrap();
    let taps = create(1);
    sent(&taps[0], 3);
    let manager = manager_with(&[], "[readers.tap_ebpf]\npin = false\n");
    let nics = ["vmt0".into(), "x".repeat(40), "../net/vmt0".into()].map(Nic::local);
    manager.set_instance_source(vec![InstanceInfo {
        id: "a".into(),
        nics: nics.into(),
        ..Default::default()
    }]);
    let snapshot = manager.collect();
    let vm = &snapshot.vms[0];
    assert_eq!((vm.nics[0].source, vm.nics[0].tx.packets), (NicSource::Ebpf, Some(3)));
    assert_eq!([vm.nics[1].ifindex, vm.nics[2].ifindex], [None, None]);
    assert_eq!(vm.net_tx_packets, None, "a partial sum is unknown");
    let source = &part(&snapshot.components, "instance_source").health;
    assert!(source.reason.contains("cannot be the name of a network device"), "{source:?}");
}
