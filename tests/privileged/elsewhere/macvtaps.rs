//! Macvtaps in foreign namespaces, where a descriptor does not name the namespace.

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use rustix::mount::{MountFlags, mount, mount_bind};
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::{Frame, PEER};
use vm_metrics_testkit::macvtap::Macvtap;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::SOON;

use super::host::{Host, OFTEN};
use crate::isolation::isolated;

const DEVICE: &str = "vmv0";

/// A VM with a macvtap in a foreign namespace.
struct Guest {
    id: &'static str,
    netns: String,
    macvtap: Macvtap,
    /// The other end of the underlying network.
    peer: PacketSocket,
    address: [u8; 6],
    vmm: Option<ChildProcess>,
    namespace: File,
}

impl Guest {
    /// Starts the VMM in the namespace, or leaves that to the caller.
    fn new(host: &Host, id: &'static str, starts: bool) -> Option<Self> {
        let namespace = NetNs::enter().unwrap();
        let macvtap = Macvtap::create_up(DEVICE).unwrap()?;
        let vmm = starts.then(|| host.shell.start(id, &macvtap));
        Some(Self {
            id,
            netns: namespace.inode().to_string(),
            peer: PacketSocket::bind(macvtap.peer().name()).unwrap(),
            address: macvtap.link().hardware_address().unwrap(),
            macvtap,
            vmm,
            namespace: File::open("/proc/thread-self/ns/net").unwrap(),
        })
    }

    fn value(&self, metrics: &Metrics, name: &str) -> Option<f64> {
        metrics.value(name, &[("instance_id", self.id), ("netns", &self.netns), ("device", DEVICE)])
    }

    fn counts(&self, metrics: &Metrics) -> Option<(f64, f64)> {
        let of = |name| self.value(metrics, name);
        Some((of("vm_network_tx_bytes_total")?, of("vm_network_rx_bytes_total")?))
    }

    /// Sends and receives so many frames, and waits for the exact count of each direction.
    fn assert_counted(&self, daemon: &Daemon, sent: u64, received: u64) {
        let before = daemon.wait_for(SOON, self.id, |metrics| self.counts(metrics)).unwrap();
        let frame = Frame::from_guest().to(PEER).udp4(100);
        (0..sent).for_each(|_| self.macvtap.write_frame(&frame).unwrap());
        let answer = Frame::to_guest().to(self.address).tcp4(900);
        (0..received).for_each(|_| self.peer.send(&answer).unwrap());
        let bytes = |frames: u64, frame: &[u8]| (frames * frame.len() as u64) as f64;
        let expected = (before.0 + bytes(sent, &frame), before.1 + bytes(received, &answer));
        let counted = |metrics: &Metrics| (self.counts(metrics) == Some(expected)).then_some(());
        daemon.wait_for(SOON, &format!("{expected:?} of {}", self.id), counted).unwrap();
    }
}

fn with_macvtap(test: &str, body: impl FnOnce(Host)) {
    let is_there = {
        let _namespace = NetNs::enter().unwrap();
        Macvtap::create_up(DEVICE).unwrap().is_some()
    };
    if is_there { isolated(test, || body(Host::new())) } else { skip("this kernel has no macvtap") }
}

#[test]
fn a_macvtap_in_its_vmms_namespace_is_counted() {
    with_macvtap("elsewhere::macvtaps::a_macvtap_in_its_vmms_namespace_is_counted", |host| {
        // Both namespaces have a device of this name.
        let here = Macvtap::create_up(DEVICE).unwrap().unwrap();
        let guests = ["a", "b"].map(|id| Guest::new(&host, id, true).unwrap());
        for tables in ["", "[readers]\ntap_netlink.enabled = false\ntap_ebpf.enabled = false\n"] {
            let daemon = host.daemon(&format!("{OFTEN}{tables}"));
            here.write_frame(&Frame::from_guest().to(PEER).udp4(500)).unwrap();
            guests[0].assert_counted(&daemon, 3, 7);
            guests[1].assert_counted(&daemon, 40, 2);
            let metrics = daemon.metrics().unwrap();
            assert_eq!(metrics.samples("vm_network_unmonitored_info").count(), 0);
        }
        drop(guests.map(|guest| guest.vmm));
    });
}

#[test]
fn a_macvtap_in_a_named_namespace_is_counted() {
    with_macvtap("elsewhere::macvtaps::a_macvtap_in_a_named_namespace_is_counted", |host| {
        // A guest of the suite has no such directory.
        fs::create_dir_all("/run").unwrap();
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
        fs::create_dir("/run/netns").unwrap();
        fs::write("/run/netns/of-a", "").unwrap();
        let guest = Guest::new(&host, "a", false).unwrap();
        mount_bind(format!("/proc/self/fd/{}", guest.namespace.as_raw_fd()), "/run/netns/of-a").unwrap();
        let _vmm = host.shell.start("a", &guest.macvtap);
        let daemon = host.daemon(OFTEN);
        guest.assert_counted(&daemon, 5, 9);
    });
}
