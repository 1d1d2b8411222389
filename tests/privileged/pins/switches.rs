//! Daemons with different readers continue the same counters.

use std::path::Path;

use super::host::{BINARY, Host, cases, wait_for_all, wait_for_device};

/// The disabled readers, and the remaining one.
const SWITCHES: [(&[&str], &str); 5] = [
    (&[], "ebpf"),
    (&["tap_ebpf"], "netlink"),
    (&["tap_ebpf", "tap_netlink"], "sysfs"),
    (&["tap_netlink"], "ebpf"),
    (&[], "ebpf"),
];

#[test]
fn a_changed_reader_keeps_counters_monotonic() {
    for (user, way) in cases() {
        let host = Host::new(user, way);
        let mut exchanged = 0;
        for (off, source) in SWITCHES {
            let is_off = |reader: &str| off.contains(&reader);
            host.configure(&format!(
                "attach = \"{way}\"\nenabled = {}\n[readers.tap_netlink]\nenabled = {}\n",
                !is_off("tap_ebpf"),
                !is_off("tap_netlink"),
            ));
            let mut daemon = host.start_as(Path::new(BINARY), source);
            let wait = if source == "ebpf" { wait_for_all } else { wait_for_device };
            wait(&daemon, exchanged);
            let (more, ()) = host.exchange_while(|| {
                let packets = || daemon.metrics().unwrap().value("vm_network_tx_packets_total", &[]).unwrap();
                let mut last = exchanged as f64;
                for _ in 0..20 {
                    let now = packets();
                    assert!(now >= last, "{user:?} {way}, {source}: {now} after {last}");
                    last = now;
                }
            });
            exchanged += more;
            wait(&daemon, exchanged);
            daemon.kill().unwrap();
            // No daemon runs.
            exchanged += host.exchange_while(|| ()).0;
        }
    }
}
