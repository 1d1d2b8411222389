//! What the kernel answers, read from bytes: pure, and never beyond them.

use std::io;

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_ALIGNTO, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer, NlasIterator,
};
use netlink_packet_route::link::{LinkHeader, Stats64};
use netlink_packet_route::stats::StatsHeader;

use crate::model::{DeviceExit, NicKind, TapStats};

// Of linux/rtnetlink.h and linux/if_link.h; the library keeps its own to itself.
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
#[cfg(feature = "ebpf")]
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWSTATS: u16 = 92;
const IFLA_STATS_LINK_64: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_NEW_IFINDEX: u16 = 49;
#[cfg(feature = "ebpf")]
const TCA_KIND: u16 = 1;

/// `struct ifinfomsg`
const LINK_HEADER: usize = 16;

/// `struct tcmsg`
#[cfg(feature = "ebpf")]
const TC_HEADER: usize = 20;

/// `struct if_stats_msg`
const STATS_HEADER: usize = 12;

/// The first eight counters of `struct rtnl_link_stats64`: those that are read. The structure grows at its end.
const COUNTERS: usize = size_of::<[u64; 8]>();

/// What a datagram says of the answer as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Nothing follows.
    pub(super) done: bool,
    pub(super) interrupted: bool,
}

/// Hands over the type and payload of each message that answers the question `sequence`.
///
/// # Errors
/// The error number with which the kernel refuses, or what is wrong with the bytes.
pub(super) fn read<'d>(
    datagram: &'d [u8],
    sequence: u32,
    mut each: impl FnMut(u16, &'d [u8]) -> Result<(), DecodeError>,
) -> io::Result<Datagram> {
    let mut said = Datagram::default();
    let mut rest = datagram;
    while !rest.is_empty() && !said.done {
        let message = NetlinkBuffer::new_checked(rest).map_err(bad)?;
        let len = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(len..).unwrap_or_default();
        if message.sequence_number() != sequence {
            continue;
        }
        said.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_NOOP => {}
            NLMSG_DONE => {
                // Old kernels say nothing of how the dump went.
                let code = DoneBuffer::new_checked(message.payload()).map_or(0, |done| done.code());
                refused(code)?;
                said.done = true;
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(message.payload()).map_err(bad)?;
                refused(error.code().map_or(0, i32::from))?;
                said.done = true;
            }
            kind => {
                each(kind, message.payload()).map_err(bad)?;
                said.done = message.flags() & NLM_F_MULTIPART == 0;
            }
        }
    }
    Ok(said)
}

/// Hands over the type and payload of each message, whoever's question has led to it.
pub(super) fn unasked<'d>(
    datagram: &'d [u8],
    mut each: impl FnMut(u16, &'d [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)?;
        let len = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(len..).unwrap_or_default();
        each(message.message_type(), message.payload())?;
    }
    Ok(())
}

/// The device and its counters, when this message is of counters.
pub(super) fn link_stats(kind: u16, payload: &[u8]) -> Result<Option<(u32, TapStats)>, DecodeError> {
    if kind != RTM_NEWSTATS {
        return Ok(None);
    }
    let header = StatsHeader::parse(payload)?;
    for attribute in NlasIterator::new(payload.get(STATS_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind() != IFLA_STATS_LINK_64 {
            continue;
        }
        // The library reads what is missing as 0.
        if attribute.value().len() < COUNTERS {
            return Err(DecodeError::invalid_number(COUNTERS, attribute.value().len()));
        }
        return Ok(Some((header.ifindex, tap_stats(&Stats64::parse(attribute.value())?))));
    }
    Ok(None)
}

/// A device that is gone, and what it had counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deleted {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) kind: NicKind,
    pub(super) stats: TapStats,
    /// What became of it.
    pub(super) exit: DeviceExit,
}

/// The device, when this message says that one was deleted.
pub(super) fn deleted(kind: u16, payload: &[u8]) -> Result<Option<Deleted>, DecodeError> {
    if kind != RTM_DELLINK {
        return Ok(None);
    }
    let header = LinkHeader::parse(payload)?;
    let (mut name, mut stats, mut kind) = (None, None, NicKind::default());
    let (mut moved, mut new_ifindex) = (false, 0);
    for attribute in NlasIterator::new(payload.get(LINK_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_LINKINFO => kind = nic_kind(value)?,
            IFLA_NEW_NETNSID => moved = true,
            IFLA_NEW_IFINDEX => new_ifindex = value.try_into().map_or(0, u32::from_ne_bytes),
            IFLA_STATS64 if value.len() >= COUNTERS => stats = Some(tap_stats(&Stats64::parse(value)?)),
            _ => {}
        }
    }
    let exit = if moved { DeviceExit::Moved { ifindex: new_ifindex } } else { DeviceExit::Deleted };
    let both = name.zip(stats);
    Ok(both.map(|(name, stats)| Deleted { ifindex: header.index, name, kind, stats, exit }))
}

/// A device that has come, or that has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Appeared {
    pub(super) ifindex: u32,
    pub(super) name: String,
}

/// The device, when this message says of one that a VM can have that it is there.
pub(super) fn appeared(kind: u16, payload: &[u8]) -> Result<Option<Appeared>, DecodeError> {
    if kind != RTM_NEWLINK {
        return Ok(None);
    }
    let ifindex = LinkHeader::parse(payload)?.index;
    let (mut name, mut may_be_a_vms) = (None, false);
    for attribute in NlasIterator::new(payload.get(LINK_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(attribute.value())),
            IFLA_LINKINFO => may_be_a_vms = driver(attribute.value())? != Driver::Other,
            _ => {}
        }
    }
    Ok(name.filter(|_| may_be_a_vms).map(|name| Appeared { ifindex, name }))
}

/// The device, when this message describes one.
pub(super) fn link(kind: u16, payload: &[u8]) -> Result<Option<(u32, NicKind)>, DecodeError> {
    if kind != RTM_NEWLINK {
        return Ok(None);
    }
    let header = LinkHeader::parse(payload)?;
    for attribute in NlasIterator::new(payload.get(LINK_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_LINKINFO {
            return Ok(Some((header.index, nic_kind(attribute.value())?)));
        }
    }
    Ok(Some((header.index, NicKind::default())))
}

/// The kind of the queueing discipline, when this message describes one.
#[cfg(feature = "ebpf")]
pub(super) fn qdisc(kind: u16, payload: &[u8]) -> Result<Option<String>, DecodeError> {
    if kind != RTM_NEWQDISC {
        return Ok(None);
    }
    for attribute in NlasIterator::new(payload.get(TC_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind() == TCA_KIND {
            let name = String::from_utf8_lossy(attribute.value());
            return Ok(Some(name.trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

/// What makes a device, as its driver calls itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Tun,
    Macvtap,
    Ipvtap,
    Other,
}

fn driver(link_info: &[u8]) -> Result<Driver, DecodeError> {
    for attribute in NlasIterator::new(link_info) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_INFO_KIND {
            return Ok(match attribute.value() {
                b"tun\0" => Driver::Tun,
                b"macvtap\0" => Driver::Macvtap,
                b"ipvtap\0" => Driver::Ipvtap,
                _ => Driver::Other,
            });
        }
    }
    Ok(Driver::Other)
}

fn nic_kind(link_info: &[u8]) -> Result<NicKind, DecodeError> {
    Ok(if driver(link_info)? == Driver::Macvtap { NicKind::Macvtap } else { NicKind::Tap })
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

pub(super) fn bad(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

fn tap_stats(stats: &Stats64) -> TapStats {
    TapStats {
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        rx_dropped: stats.rx_dropped,
        tx_dropped: stats.tx_dropped,
    }
}

fn refused(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn a_deleted_device_is_read_with_its_last_counters() {
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
    fn a_dump_is_read_and_the_answers_to_others_are_not() {
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
    fn the_kind_of_a_device_is_in_its_link_info() {
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
    fn a_device_that_a_vm_can_have_appears_with_its_name() {
        let of = |kind: &[u8]| {
            let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind));
            let payload = [deleted_payload(42, "tap0", &[]), info].concat();
            appeared(RTM_NEWLINK, &payload).expect("a good message")
        };
        let tap = Appeared { ifindex: 42, name: "tap0".into() };
        assert_eq!(
            [of(b"tun\0"), of(b"macvtap\0")],
            [Some(Appeared { name: "tap0".into(), ..tap }), Some(tap)]
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
        fn what_is_cut_short_is_refused_and_never_read_wrong(
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
}
