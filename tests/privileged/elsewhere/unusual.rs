//! Foreign devices in special cases: moved, numerous, dropping, or inaccessible.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::link::ip;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::{NetNs, enter_of};
use vm_metrics_testkit::service;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::SOON;

use super::handles::open_files;
use super::host::{Guest, Host, OFTEN};
use crate::isolation::isolated;

/// The VMM is in the daemon's namespace, and its device is in a foreign one.
#[test]
fn a_device_outside_its_vmms_namespace_is_counted() {
    isolated("elsewhere::unusual::a_device_outside_its_vmms_namespace_is_counted", || {
        let host = Host::new();
        let (tap, netns) = {
            let namespace = NetNs::enter().unwrap();
            (Tap::create_up("vmt0", TapOptions::default()).unwrap(), namespace.inode().to_string())
        };
        let _vmm = host.shell.start("a", &tap);
        let daemon = host.daemon(OFTEN);
        let there = [("instance_id", "a"), ("netns", netns.as_str()), ("source", "ebpf")];
        let counted = |metrics: &Metrics| metrics.value("vm_network_source_info", &there);
        daemon.wait_for(SOON, "the device", counted).unwrap();
        let frame = Frame::from_guest().udp4(300);
        (0..9).for_each(|_| tap.write_frame(&frame).unwrap());
        let sent = |metrics: &Metrics| {
            let bytes = metrics.value("vm_network_tx_bytes_total", &[("instance_id", "a")])?;
            (bytes == 9.0 * frame.len() as f64).then_some(())
        };
        daemon.wait_for(SOON, "nine frames", sent).unwrap();
    });
}

/// The device moves into another VM's namespace and back. Counts stay apart, and no counter falls.
#[test]
fn a_moved_device_is_not_confused() {
    isolated("elsewhere::unusual::a_moved_device_is_not_confused", || {
        let host = Host::new();
        let resident = host.guest("resident");
        let tap = Tap::create_up("vmt1", TapOptions::default()).unwrap();
        let _vmm = host.shell.start("mover", &tap);
        let daemon = host.daemon(OFTEN);
        resident.wait_until_counted_by(&daemon, "ebpf");
        let counted_in = |netns: &str| {
            let netns = netns.to_owned();
            move |metrics: &Metrics| {
                let labels = [("instance_id", "mover"), ("netns", netns.as_str()), ("source", "ebpf")];
                metrics.value("vm_network_source_info", &labels)
            }
        };
        daemon.wait_for(SOON, "the device here", counted_in("")).unwrap();
        let frame = Frame::from_guest().udp4(300);
        let send = |frames: u64| (0..frames).for_each(|_| tap.write_frame(&frame).unwrap());
        send(5);
        let of_resident = (resident.send(3), 0);
        let (netns, pid) = (resident.netns.to_string(), resident.vmm.pid().to_string());
        ip(&["link", "set", "vmt1", "netns", &pid]).unwrap();
        daemon.wait_for(SOON, "the device there", counted_in(&netns)).unwrap();
        {
            let _inside = enter_of(resident.vmm.pid()).unwrap();
            tap.link().up().unwrap();
        }
        send(4);
        // The move starts a new device, at the published value: no byte counts twice.
        let sent = |metrics: &Metrics| {
            let there = [("instance_id", "mover"), ("netns", netns.as_str())];
            let bytes = metrics.value("vm_network_tx_bytes_total", &there)?;
            assert!(bytes <= 4.0 * frame.len() as f64, "{bytes}");
            (bytes == 4.0 * frame.len() as f64).then_some(())
        };
        daemon.wait_for(SOON, "the four frames from there", sent).unwrap();
        let all = daemon.metrics().unwrap();
        let of_mover = all
            .samples("vm_network_tx_bytes_total")
            .filter(|sample| sample.label("instance_id") == Some("mover"));
        assert_eq!(of_mover.map(|sample| sample.value).sum::<f64>(), 9.0 * frame.len() as f64);
        resident.wait_for_bytes(&daemon, of_resident);
    });
}

/// More devices than the first set of programs has room for.
#[test]
fn many_devices_in_one_namespace_are_all_counted() {
    isolated("elsewhere::unusual::many_devices_in_one_namespace_are_all_counted", || {
        let host = Host::new();
        let resident = host.guest("resident");
        let mut vms: Vec<_> = Vec::new();
        let mut add = |number: usize| {
            let _inside = enter_of(resident.vmm.pid()).unwrap();
            let tap = Tap::create_up(&format!("vmt-{number}"), TapOptions::default()).unwrap();
            let vmm = host.shell.start(&format!("vm{number}"), &tap);
            vms.push((tap, vmm));
        };
        (1..3).for_each(&mut add);
        // clsact attaches a hundred times faster.
        let tables = format!("{OFTEN}[readers.tap_ebpf]\nattach = \"clsact\"\n");
        let mut daemon = host.daemon(&tables);
        let counted = |metrics: &Metrics| {
            metrics
                .samples("vm_network_source_info")
                .filter(|sample| sample.label("source") == Some("ebpf"))
                .count()
        };
        daemon.wait_for(SOON, "three", |metrics| (counted(metrics) == 3).then_some(())).unwrap();
        (3..20).for_each(&mut add);
        daemon.wait_for(SOON, "twenty", |metrics| (counted(metrics) == 20).then_some(())).unwrap();
        let frame = Frame::from_guest().udp4(300);
        let send_to_each = || {
            for (number, (tap, _)) in (1..).zip(&vms) {
                (0..number).for_each(|_| tap.write_frame(&frame).unwrap());
            }
        };
        let each_has = |times: usize| {
            move |metrics: &Metrics| {
                let has_its_own = |number: usize| {
                    let id = format!("vm{number}");
                    let labels = [("instance_id", id.as_str()), ("direction", "tx"), ("transport", "udp")];
                    let udp = metrics.value("vm_network_packets_by_transport_total", &labels);
                    udp == Some((times * number) as f64)
                };
                (1..20).all(has_its_own).then_some(())
            }
        };
        send_to_each();
        daemon.wait_for(SOON, "each its own", each_has(1)).unwrap();
        // The next daemon takes over all sets of programs.
        daemon.kill().unwrap();
        send_to_each();
        let daemon = host.daemon(&tables);
        send_to_each();
        daemon.wait_for(SOON, "each its own, three times", each_has(3)).unwrap();
    });
}

/// Drops of a full ring are counted apart in each namespace.
#[test]
fn foreign_drops_are_counted_in_bytes() {
    isolated("elsewhere::unusual::foreign_drops_are_counted_in_bytes", || {
        let host = Host::new();
        let guests: Vec<Guest> = (0..8).map(|number| host.guest(&format!("vm{number}"))).collect();
        // The limit applies to each namespace.
        let daemon = host.daemon(&format!("{OFTEN}[readers.tap_ebpf]\nmax_nics = 1\n"));
        guests.iter().for_each(|guest| guest.wait_until_counted_by(&daemon, "ebpf"));
        let metrics = daemon.metrics().unwrap();
        let sees_drops = |guest: &&Guest| guest.dropped(&metrics, "bytes").is_some();
        let seen = guests.iter().filter(sees_drops).count();
        assert!(seen == 0 || seen == guests.len(), "drops are seen of {seen} of them");
        for (guest, frames) in guests.iter().zip((1300..).step_by(100)) {
            guest.fill(&daemon, frames);
        }
    });
}

/// The service user may not enter other namespaces.
#[test]
fn without_setns_the_device_counters_are_read() {
    isolated("elsewhere::unusual::without_setns_the_device_counters_are_read", || {
        let host = Host::new();
        let guests = [host.guest("a"), host.guest("b")];
        let (binary, config) = host.public_files(OFTEN);
        let mut command = service::command(&binary, &service::capabilities());
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        let daemon = Daemon::start_command(command).unwrap();
        daemon.wait_until_ready().unwrap();
        guests.iter().for_each(|guest| guest.wait_until_counted_by(&daemon, "procfs"));
        for (guest, frames) in guests.iter().zip([3, 40]) {
            let bytes = (guest.send(frames), guest.receive(2 * frames));
            guest.wait_for_bytes(&daemon, bytes);
        }
        // While one is open, no other namespace has its inode.
        let files = open_files(daemon.pid());
        for guest in &guests {
            let handle = format!("net:[{}]", guest.netns);
            assert_eq!(files.iter().filter(|file| **file == handle).count(), 1, "{files:?}");
        }
        let metrics = daemon.metrics().unwrap();
        assert_eq!(
            guests[0].value(&metrics, "vm_network_rx_offered_packets_total"),
            None,
            "not measured is absent"
        );
        let log = daemon.log();
        let is_named = |guest: &Guest| log.contains(&format!("net:[{}]", guest.netns));
        assert!(log.contains("CAP_SYS_ADMIN") && guests.iter().any(is_named), "{log}");
        // Another VM has a namespace that may reuse the inode of the last one.
        let [first, _second] = guests;
        let id = first.id.clone();
        drop(first);
        let gone =
            |metrics: &Metrics| metrics.value("vm_running", &[("instance_id", &id)]).filter(|up| *up == 0.0);
        daemon.wait_for(SOON, "the end of the VM", gone).unwrap();
        let next = host.guest("c");
        let bytes = next.send(100);
        next.wait_for_bytes(&daemon, (bytes, 0));
    });
}
