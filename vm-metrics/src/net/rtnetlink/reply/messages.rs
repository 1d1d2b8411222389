//! Parses single rtnetlink messages about devices, counters and qdiscs.

use netlink_packet_core::{DecodeError, NlasIterator};
use netlink_packet_route::link::{LinkHeader, Stats64};
use netlink_packet_route::stats::StatsHeader;

use crate::model::{DeviceExit, NicKind, TapStats};

// Of linux/rtnetlink.h and linux/if_link.h; the library keeps its own to itself.
pub(in super::super) const RTM_NEWLINK: u16 = 16;
pub(in super::super) const RTM_DELLINK: u16 = 17;
#[cfg(feature = "ebpf")]
const RTM_NEWQDISC: u16 = 36;
pub(super) const RTM_NEWSTATS: u16 = 92;
pub(super) const IFLA_STATS_LINK_64: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_STATS64: u16 = 23;
pub(super) const IFLA_NEW_NETNSID: u16 = 45;
pub(super) const IFLA_NEW_IFINDEX: u16 = 49;
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

/// The device and its counters, when this message is of counters.
pub(in super::super) fn link_stats(
    kind: u16,
    payload: &[u8],
) -> Result<Option<(u32, TapStats)>, DecodeError> {
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeletedDevice {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) kind: NicKind,
    pub(crate) stats: TapStats,
    /// What became of it.
    pub(crate) exit: DeviceExit,
}

/// The device, when this message says that one was deleted.
pub(in super::super) fn deleted(kind: u16, payload: &[u8]) -> Result<Option<DeletedDevice>, DecodeError> {
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
    Ok(both.map(|(name, stats)| DeletedDevice { ifindex: header.index, name, kind, stats, exit }))
}

/// A device that has come, or that has changed.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct NamedDevice {
    pub(in super::super) ifindex: u32,
    pub(in super::super) name: String,
}

/// The device, when this message says of one that a VM can have that it is there.
pub(in super::super) fn appeared(kind: u16, payload: &[u8]) -> Result<Option<NamedDevice>, DecodeError> {
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
    Ok(name.filter(|_| may_be_a_vms).map(|name| NamedDevice { ifindex, name }))
}

/// The device, when this message describes one.
pub(in super::super) fn link(kind: u16, payload: &[u8]) -> Result<Option<(u32, NicKind)>, DecodeError> {
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
pub(in super::super) fn qdisc(kind: u16, payload: &[u8]) -> Result<Option<String>, DecodeError> {
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
