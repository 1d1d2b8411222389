//! Counters that are off have no numbers, and the others stay exact.

use std::collections::BTreeMap;

use vm_metrics::{DirectionStats, Traffic};
use vm_metrics_testkit::frames::{BROADCAST, Frame};
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::TapOptions;

use crate::lab::{Lab, manager_with};

/// The counters of each group.
const GROUPS: [(&str, &[&str]); 3] = [
    ("protocols", &["ipv4", "ipv6", "arp", "other_l3", "tcp", "udp", "icmp", "other_l4"]),
    ("destination", &["unicast", "multicast", "broadcast"]),
    ("wire", &["wire_packets", "wire_bytes", "gso_packets"]),
];

/// The known counters by name.
type Counts = BTreeMap<String, u64>;

#[test]
fn counters_that_are_off_have_no_numbers() {
    let all = counted(&["protocols", "destination", "wire"]);
    assert_eq!(all.sent.len(), 2 + GROUPS.iter().map(|(_, counters)| counters.len()).sum::<usize>());
    for (group, counters) in GROUPS.into_iter().chain([("", &[][..])]) {
        let groups: &[&str] = if group.is_empty() { &[] } else { &[group] };
        let some = counted(groups);
        let expected = |all: &Counts| -> Counts {
            let is_on = |name: &str| ["packets", "bytes"].contains(&name) || counters.contains(&name);
            all.iter().filter(|(name, _)| is_on(name)).map(|(name, count)| (name.clone(), *count)).collect()
        };
        assert_eq!(some.sent, expected(&all.sent), "{group:?}");
        assert_eq!(some.received, expected(&all.received), "{group:?}");
        assert_eq!(some.offered, all.offered, "{group:?}");
    }
}

struct Sample {
    sent: Counts,
    received: Counts,
    offered: Option<Traffic>,
}

/// Sends the same frames in both directions, and returns their counts.
fn counted(splits: &[&str]) -> Sample {
    let tables = format!("retention = \"0s\"\n[readers.tap_ebpf]\npin = false\nsplits = {splits:?}\n");
    let options = TapOptions { vnet_hdr: true, ..TapOptions::default() };
    let mut lab = Lab::managed(1, options, |taps| manager_with(taps, &tables));
    lab.tick();
    let host = PacketSocket::bind_with_vnet_header("vmt0").unwrap();
    for frame in frames(&Frame::from_guest()) {
        lab.send(&frame);
    }
    for frame in frames(&Frame::to_guest()) {
        host.send(&frame).unwrap();
    }
    let (_, ebpf) = lab.tick_one();
    Sample { sent: known(&ebpf.tx), received: known(&ebpf.rx), offered: ebpf.offered }
}

fn frames(from: &Frame) -> Vec<Vec<u8>> {
    let from = || from.clone().vnet_header();
    vec![
        from().udp4(100),
        from().tcp6(7),
        from().to(BROADCAST).arp(),
        from().vlan(7).icmp4(9),
        from().gso(1000).tcp4(3500),
    ]
}

fn known(stats: &DirectionStats<Option<u64>>) -> Counts {
    let counts: BTreeMap<String, Option<u64>> =
        serde_json::from_value(serde_json::to_value(stats).unwrap()).unwrap();
    counts.into_iter().filter_map(|(name, count)| Some((name, count?))).collect()
}
