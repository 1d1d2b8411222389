//! A real guest's traffic equals the counters of its TAP.

use vm_metrics_testkit::guest::{GuestConfig, GuestImage, GuestNic};
use vm_metrics_testkit::link::Link;
use vm_metrics_testkit::netns::NetNs;

#[test]
fn fifty_pings_are_fifty_one_packets_each_way() {
    let image = GuestImage::prepare().unwrap();
    let _netns = NetNs::enter().unwrap();
    let nic = GuestNic::new("vmguest0", [10, 0, 0, 1], [10, 0, 0, 2]);
    let mut guest = image.boot(GuestConfig::new("pinger", vec![nic]).unwrap()).unwrap();

    guest.ping([10, 0, 0, 1].into(), 50, 958).unwrap();
    let device = guest.link(0).counters().unwrap();
    // 50 frames of 1000 bytes, and one ARP exchange.
    assert_eq!((device.rx_packets, device.rx_bytes), (51, 50_042));
    assert_eq!((device.tx_packets, device.tx_bytes), (51, 50_042));
    let own = guest.net_dev().unwrap()["eth0"];
    assert_eq!((own.tx_packets, own.tx_bytes), (51, 50_042));
    assert_eq!((own.rx_packets, own.rx_bytes), (51, 50_042));

    drop(guest);
    assert!(!Link::named("vmguest0").exists(), "the TAP goes with QEMU");
}

#[test]
fn transfers_go_both_ways_over_either_interface() {
    const BYTES: u64 = 4 << 20;
    let image = GuestImage::prepare().unwrap();
    let _netns = NetNs::enter().unwrap();
    let mut second = GuestNic::new("vmguest1", [10, 0, 1, 1], [10, 0, 1, 2]);
    second.queues = 2;
    let first = GuestNic::new("vmguest0", [10, 0, 0, 1], [10, 0, 0, 2]);
    let mut config = GuestConfig::new("mover", vec![first, second]).unwrap();
    config.vcpus = 2;
    let mut guest = image.boot(config).unwrap();
    assert_eq!(guest.run("nproc").unwrap(), "2\n");
    let error = guest.run("echo no; exit 3").unwrap_err().to_string();
    assert!(error.contains("exit status 3") && error.contains("no"), "{error}");

    guest.send_to_host(0, BYTES).unwrap();
    guest.receive_from_host(1, BYTES).unwrap();
    let (sent, received) = (guest.link(0).counters().unwrap(), guest.link(1).counters().unwrap());
    assert!(sent.rx_bytes > BYTES && sent.tx_bytes < BYTES / 2, "{sent:?}");
    assert!(received.tx_bytes > BYTES && received.rx_bytes < BYTES / 2, "{received:?}");
}
