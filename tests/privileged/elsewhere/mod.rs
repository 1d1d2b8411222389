//! TAPs in foreign namespaces, with equal names and indices, as jailers make them.

mod between_ticks;
mod handles;
mod host;
mod macvtaps;
mod unusual;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::link::{Link, ip};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use self::host::{Guest, Host, IFINDEX, OFTEN, PINS, TAP};
use crate::isolation::isolated;
use crate::lab::ways;

/// Three devices share one name and one index: one in the daemon's namespace, two in foreign ones.
#[test]
fn equal_names_and_indices_are_counted_apart() {
    isolated("elsewhere::equal_names_and_indices_are_counted_apart", || {
        for way in ways() {
            let host = Host::new();
            let here = Tap::create_up(TAP, TapOptions { ifindex: IFINDEX, ..TapOptions::default() }).unwrap();
            let _here_vmm = host.shell.start("here", &here);
            let guests = [host.guest("a"), host.guest("b")];
            let daemon = host.daemon(&format!("{OFTEN}[readers.tap_ebpf]\nattach = \"{way}\"\n"));
            guests.iter().for_each(|guest| guest.wait_until_counted_by(&daemon, "ebpf"));
            here.write_frame(&Frame::from_guest().udp4(1000)).unwrap();
            for (guest, frames) in guests.iter().zip([3, 40]) {
                let bytes = (guest.send(frames), guest.receive(2 * frames));
                guest.wait_for_bytes(&daemon, bytes);
            }
            let metrics = daemon.metrics().unwrap();
            let offered = |id| metrics.value("vm_network_rx_offered_packets_total", &[("instance_id", id)]);
            assert_eq!(
                [offered("a"), offered("b"), offered("here")],
                [Some(6.0), Some(80.0), Some(0.0)],
                "{way}"
            );
            let udp = [("instance_id", "here"), ("direction", "tx"), ("transport", "udp")];
            assert_eq!(metrics.value("vm_network_packets_by_transport_total", &udp), Some(1.0), "{way}");
        }
    });
}

/// SIGKILL ends the daemon under traffic, and traffic continues without a daemon.
#[test]
fn foreign_taps_are_counted_without_a_daemon() {
    isolated("elsewhere::foreign_taps_are_counted_without_a_daemon", || {
        for way in ways() {
            let host = Host::new();
            let guest = host.guest("a");
            let tables = format!("{OFTEN}[readers.tap_ebpf]\nattach = \"{way}\"\n");
            let mut daemon = host.daemon(&tables);
            guest.wait_until_counted_by(&daemon, "ebpf");
            let mut bytes = (guest.send(5), guest.receive(5));
            guest.wait_for_bytes(&daemon, bytes);
            daemon.kill().unwrap();
            bytes = (bytes.0 + guest.send(7), bytes.1 + guest.receive(7));
            let daemon = host.daemon(&tables);
            guest.wait_until_counted_by(&daemon, "ebpf");
            guest.wait_for_bytes(&daemon, bytes);
            let metrics = daemon.metrics().unwrap();
            let offered = guest.value(&metrics, "vm_network_rx_offered_packets_total");
            assert_eq!(offered, Some(12.0), "{way}: the eBPF counts continued, too");
            assert_eq!(guest.value(&metrics, "vm_network_rx_backlog_packets"), Some(0.0), "{way}");
        }
    });
}

/// `detach` removes the programs of a killed daemon, as does a daemon that finds no VM for them.
#[test]
fn detach_leaves_nothing_in_foreign_namespaces() {
    isolated("elsewhere::detach_leaves_nothing_in_foreign_namespaces", || {
        let host = Host::new();
        let mut guests: Vec<Guest> = Vec::new();
        for way in ways() {
            guests.push(host.guest(way));
            let leave = || {
                let mut daemon = host.daemon(&format!("{OFTEN}[readers.tap_ebpf]\nattach = \"{way}\"\n"));
                guests.iter().for_each(|guest| guest.wait_until_counted_by(&daemon, "ebpf"));
                daemon.kill().unwrap();
                guests.iter().for_each(|guest| assert_eq!(guest.attached(), 2, "{way}"));
            };
            leave();
            let detached = host.detach();
            // The kernel detaches the programs of a removed pin a moment later.
            let are_off = || Ok(guests.iter().all(|guest| guest.attached() == 0).then_some(()));
            wait_until(SOON, &format!("{way}: programs off after {detached}"), are_off).unwrap();
            assert!(!Path::new(PINS).exists(), "{way}");
            leave();
        }
        // Each TAP now has programs attached by the other method, because existing ones stay.
        let _daemon = host.daemon("interval = \"50ms\"\n[sources.proc_scan]\nenabled = false\n");
        let own = || {
            let attached: usize = guests.iter().map(Guest::attached).sum();
            Ok((fs::read_dir(PINS)?.count() == 1 && attached == 0).then_some(()))
        };
        wait_until(5 * SOON, "a minute, and the pins and programs removed", own).unwrap();
    });
}

/// A namespace lives as long as its last reference. The daemon must not hold that.
#[test]
fn a_namespace_ends_with_its_vm() {
    isolated("elsewhere::a_namespace_ends_with_its_vm", || {
        let host = Host::new();
        let guest = host.guest("a");
        // The other end goes with the namespace.
        let peer = Link::named("vmtveth0");
        let pid = guest.vmm.pid().to_string();
        ip(&["link", "add", peer.name(), "type", "veth", "peer", "name", "vmtveth1", "netns", &pid]).unwrap();
        let daemon = host.daemon("interval = \"1h\"\n");
        guest.wait_until_counted_by(&daemon, "ebpf");
        let bytes = guest.send(5);
        let Guest { tap, host: socket, mut vmm, .. } = guest;
        drop((tap, socket));
        vmm.kill().unwrap();
        drop(vmm);
        let sent = |metrics: &Metrics| metrics.value("vm_network_tx_bytes_total", &[]);
        let gone = |metrics: &Metrics| metrics.value("vm_running", &[]).filter(|up| *up == 0.0);
        daemon.wait_for(SOON, "the end of the VM, an hour before the next tick", gone).unwrap();
        assert_eq!(sent(&daemon.metrics().unwrap()), Some(bytes as f64), "the last bytes");
        wait_until(SOON, "the namespace to end", || Ok((!peer.exists()).then_some(()))).unwrap();
        let pins = fs::read_dir(PINS).unwrap().count();
        assert_eq!(pins, 1, "those of the daemon's own namespace");
    });
}

/// The new namespace has the inode of an ended one, and a TAP with the same name and index.
#[test]
fn a_reused_namespace_inode_starts_at_zero() {
    isolated("elsewhere::a_reused_namespace_inode_starts_at_zero", || {
        let host = Host::new();
        let daemon = host.daemon(OFTEN);
        let (mut used, mut again) = (HashSet::new(), 0);
        let deadline = Instant::now() + 3 * SOON;
        for frames in (10..).step_by(10) {
            let guest = host.guest_after(&format!("vm{frames}"), frames);
            again += u32::from(!used.insert(guest.netns));
            let bytes = 2 * guest.send(frames);
            guest.wait_until_counted_by(&daemon, "ebpf");
            guest.wait_for_bytes(&daemon, (bytes, 0));
            guest.fill(&daemon, 1100 + frames);
            let id = guest.id.clone();
            drop(guest);
            let up = |metrics: &Metrics| metrics.value("vm_running", &[("instance_id", &id)]);
            daemon.wait_for(SOON, "its end", |metrics| up(metrics).filter(|up| *up == 0.0)).unwrap();
            if again == 2 {
                break;
            }
            assert!(Instant::now() < deadline, "no number is used again: {used:?}");
        }
    });
}
