//! Tests of datagrams and messages, good, cut and broken.

use proptest::prelude::*;

use super::messages::{
    IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_NEW_IFINDEX, IFLA_NEW_NETNSID, IFLA_STATS_LINK_64,
    IFLA_STATS64, RTM_NEWSTATS,
};
use super::*;
use crate::model::{DeviceExit, NicKind, TapStats};

const OURS: u32 = 7;

pub(in super::super) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + payload.len()).expect("a short message");
    let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    bytes.extend([sequence, 0].map(u32::to_ne_bytes).concat());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a short attribute");
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn stats_payload(ifindex: u32, counters: &[u64]) -> Vec<u8> {
    let counters: Vec<u8> = counters.iter().flat_map(|counter| counter.to_ne_bytes()).collect();
    let header = [0, ifindex, 1].map(u32::to_ne_bytes).concat();
    // A kernel whose CPU wants it puts an empty attribute before one of 64-bit numbers.
    [header, attribute(0, &[]), attribute(IFLA_STATS_LINK_64, &counters)].concat()
}

pub(in super::super) fn stats(sequence: u32, ifindex: u32, counters: &[u64]) -> Vec<u8> {
    message(RTM_NEWSTATS, NLM_F_MULTIPART, sequence, &stats_payload(ifindex, counters))
}

pub(in super::super) fn done(flags: u16, sequence: u32, code: i32) -> Vec<u8> {
    message(NLMSG_DONE, NLM_F_MULTIPART | flags, sequence, &code.to_ne_bytes())
}

fn deleted_payload(ifindex: u32, name: &str, counters: &[u64]) -> Vec<u8> {
    let counters: Vec<u8> = counters.iter().flat_map(|counter| counter.to_ne_bytes()).collect();
    let header = [0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
    let mut name = attribute(IFLA_IFNAME, format!("{name}\0").as_bytes());
    name.resize(name.len().next_multiple_of(4), 0);
    [header, name, attribute(IFLA_STATS64, &counters)].concat()
}

#[test]
fn a_deleted_device_has_its_final_counters() {
    let counters: Vec<u64> = (1..=25).collect();
    let read = deleted(RTM_DELLINK, &deleted_payload(7, "tap0", &counters)).expect("a good message");
    let read = read.expect("a device");
    assert_eq!((read.ifindex, read.name.as_str(), read.exit), (7, "tap0", DeviceExit::Deleted));
    let moved = [(IFLA_NEW_NETNSID, 3_u32), (IFLA_NEW_IFINDEX, 9)];
    let moved = moved.map(|(kind, value)| attribute(kind, &value.to_ne_bytes())).concat();
    let moved = [deleted_payload(7, "tap0", &counters), moved].concat();
    let read = deleted(RTM_DELLINK, &moved).expect("a good message").expect("a device");
    assert_eq!(read.exit, DeviceExit::Moved { ifindex: 9 });
    assert_eq!((read.stats.rx_packets, read.stats.tx_bytes), (1, 4));
    assert_eq!(deleted(RTM_NEWLINK, &deleted_payload(7, "tap0", &counters)).expect("good"), None);
    let short = deleted(RTM_DELLINK, &deleted_payload(7, "tap0", &counters[..3])).expect("good");
    assert_eq!(short, None, "counters that are not there are not 0");
}

fn read_stats(datagram: &[u8]) -> (Vec<(u32, TapStats)>, io::Result<Datagram>) {
    let mut all = Vec::new();
    let said = read(datagram, OURS, |kind, payload| {
        all.extend(link_stats(kind, payload)?);
        link(kind, payload).map(|_| ())
    });
    (all, said)
}

#[test]
fn answers_to_other_requests_are_skipped() {
    let counters: Vec<u64> = (1..=25).collect();
    let datagram =
        [stats(OURS, 3, &counters), stats(OURS + 1, 4, &counters), stats(OURS, 5, &[9; 24])].concat();
    let (read, said) = read_stats(&datagram);
    let expected = TapStats {
        rx_packets: 1,
        tx_packets: 2,
        rx_bytes: 3,
        tx_bytes: 4,
        rx_errors: 5,
        tx_errors: 6,
        rx_dropped: 7,
        tx_dropped: 8,
    };
    assert_eq!(read[0], (3, expected));
    assert_eq!((read.len(), read[1].0, read[1].1.rx_bytes), (2, 5, 9));
    assert_eq!(said.expect("a good datagram"), Datagram::default());
}

#[test]
fn the_end_and_an_interruption_are_seen() {
    let said = |datagram: &[u8]| read_stats(datagram).1.expect("a good datagram");
    assert_eq!(said(&done(0, OURS, 0)), Datagram { done: true, interrupted: false });
    assert_eq!(said(&done(NLM_F_DUMP_INTR, OURS, 0)), Datagram { done: true, interrupted: true });
    assert_eq!(said(&[]), Datagram::default());
    let single = message(RTM_NEWLINK, 0, OURS, &[0; 16]);
    assert!(said(&single).done, "an answer of one message");
}

#[test]
fn a_refusal_has_its_error_number() {
    let errno = |datagram: &[u8]| read_stats(datagram).1.expect_err("refused").raw_os_error();
    assert_eq!(errno(&message(NLMSG_ERROR, 0, OURS, &(-95_i32).to_ne_bytes())), Some(95));
    assert_eq!(errno(&done(0, OURS, -90)), Some(90));
    assert_eq!(errno(&done(0, OURS, i32::MIN)), Some(i32::MAX));
    assert_eq!(errno(&message(NLMSG_ERROR, 0, OURS, &[1])), None, "cut short");
}

#[test]
fn a_device_without_all_its_counters_is_refused() {
    let (read, said) = read_stats(&stats(OURS, 3, &[1; 7]));
    assert_eq!(read, []);
    assert!(said.is_err());
}

#[test]
fn the_index_is_that_of_the_device_described() {
    let payload = [0, 42, 0, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(link(RTM_NEWLINK, &payload).expect("a whole header"), Some((42, NicKind::Tap)));
    assert_eq!(link(RTM_NEWSTATS, &payload).expect("not asked"), None);
    assert!(link(RTM_NEWLINK, &payload[..15]).is_err());
}

#[test]
fn link_info_has_the_kind() {
    let header = [0, 42, 0, 0].map(u32::to_ne_bytes).concat();
    let of = |kind: &[u8]| {
        let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind));
        link(RTM_NEWLINK, &[header.clone(), info].concat()).expect("a good message")
    };
    assert_eq!(of(b"macvtap\0"), Some((42, NicKind::Macvtap)));
    assert_eq!(of(b"tun\0"), Some((42, NicKind::Tap)));
    assert_eq!(of(b"macvtapx\0"), Some((42, NicKind::Tap)));
}

#[test]
fn only_devices_for_vms_appear() {
    let of = |kind: &[u8]| {
        let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind));
        let payload = [deleted_payload(42, "tap0", &[]), info].concat();
        appeared(RTM_NEWLINK, &payload).expect("a good message")
    };
    let tap = NamedDevice { ifindex: 42, name: "tap0".into() };
    assert_eq!(
        [of(b"tun\0"), of(b"macvtap\0")],
        [Some(NamedDevice { name: "tap0".into(), ..tap }), Some(tap)]
    );
    assert_eq!(of(b"veth\0"), None);
}

proptest! {
    #[test]
    fn any_bytes_unasked_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = unasked(&message(RTM_DELLINK, 0, 0, &bytes), |kind, payload| deleted(kind, payload).map(|_| ()));
        let _ = unasked(&bytes, |kind, payload| deleted(kind, payload).map(|_| ()));
        let _ = unasked(&message(RTM_NEWLINK, 0, 0, &bytes), |kind, payload| appeared(kind, payload).map(|_| ()));
    }

    #[test]
    fn a_cut_datagram_is_never_read_wrong(
        devices in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u64>(), 8..26)), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let datagram: Vec<u8> =
            devices.iter().flat_map(|(ifindex, counters)| stats(OURS, *ifindex, counters)).collect();
        let (whole, said) = read_stats(&datagram);
        prop_assert!(said.is_ok() && whole.len() == devices.len());
        let (part, said) = read_stats(&datagram[..cut.index(datagram.len())]);
        prop_assert!(whole.starts_with(&part));
        prop_assert!(part.len() < whole.len() && !said.is_ok_and(|said| said.done));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_stats(&bytes);
        for kind in [RTM_NEWSTATS, RTM_NEWLINK, NLMSG_ERROR, NLMSG_DONE, NLMSG_NOOP] {
            let _ = read_stats(&message(kind, NLM_F_MULTIPART, OURS, &bytes));
        }
    }

    #[test]
    fn flipped_bytes_are_read_without_a_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut datagram = [stats(OURS, 3, &[1; 25]), stats(OURS, 4, &[2; 25]), done(0, OURS, 0)].concat();
        for (at, byte) in flips {
            let at = at.index(datagram.len());
            datagram[at] = byte;
        }
        let _ = read_stats(&datagram);
    }
}
