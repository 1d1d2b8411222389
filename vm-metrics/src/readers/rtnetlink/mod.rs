//! The network devices of one namespace, asked over rtnetlink: which of them has a name, and what all of them count.
//!
//! `socket` carries a question there and its answers back, `events` listens to what the kernel says unasked, `reply` reads
//! both.

mod events;
mod reply;
mod socket;

use std::collections::HashMap;
use std::io;

#[cfg(feature = "ebpf")]
use netlink_packet_core::NLM_F_ECHO;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::stats::{StatsFilterMask, StatsMessage};
#[cfg(feature = "ebpf")]
use netlink_packet_route::tc::{TcHandle, TcMessage};
use rustix::io::Errno;
use rustix::net::netdevice::index_to_name_inlined;

use super::ReaderError;
use crate::model::{Nic, NicKind, TapStats, is_device_name};
use crate::netns::cookie_of;
pub(super) use events::Events;
pub(super) use socket::Dump;
use socket::Socket;

/// The devices of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Links {
    socket: Socket,
    /// What names meant the last time.
    known: HashMap<String, (u32, NicKind)>,
}

impl Links {
    pub(super) fn open() -> Result<Self, ReaderError> {
        let socket = Socket::open().map_err(failed("open a socket"))?;
        Ok(Self { socket, known: HashMap::new() })
    }

    /// What tells the namespace from any other that is or will be; `None` before Linux 5.14.
    pub(super) fn netns_cookie(&self) -> Option<u64> {
        cookie_of(&self.socket)
    }

    /// Those of the NICs whose devices are there, by interface index.
    pub(super) fn find<'v>(
        &mut self,
        nics: impl IntoIterator<Item = &'v Nic>,
    ) -> Result<HashMap<u32, &'v Nic>, ReaderError> {
        let mut found = HashMap::new();
        for nic in nics {
            if let Some(ifindex) = self.index_of(&nic.tap)? {
                found.insert(ifindex, nic);
            }
        }
        self.known.retain(|name, (ifindex, _)| found.get(ifindex).is_some_and(|nic| nic.tap == *name));
        Ok(found)
    }

    /// The device that has this name now.
    ///
    /// By SIOCGIFNAME, which is cheap, where the name was known; else by RTM_GETLINK. SIOCGIFINDEX would be one call,
    /// but it makes the kernel start modprobe for each name that it does not know.
    pub(super) fn index_of(&mut self, name: &str) -> Result<Option<u32>, ReaderError> {
        // The kernel's answer to such a name is an error, which would hide the others.
        if !is_device_name(name) {
            return Ok(None);
        }
        if let Some(&(known, _)) = self.known.get(name)
            && index_to_name_inlined(&self.socket, known).is_ok_and(|now| now.as_str() == name)
        {
            return Ok(Some(known));
        }
        let link = self.ask_link(name).map_err(failed("look up a device"))?;
        match link {
            Some(link) => self.known.insert(name.to_owned(), link),
            None => self.known.remove(name),
        };
        Ok(link.map(|(ifindex, _)| ifindex))
    }

    /// What kind of device one is that was looked up by this name.
    pub(super) fn kind_of(&self, name: &str) -> NicKind {
        self.known.get(name).map(|(_, kind)| *kind).unwrap_or_default()
    }

    /// The name of a device; `None` when it is not there.
    #[cfg(feature = "ebpf")]
    pub(super) fn name_of(&self, ifindex: u32) -> Option<String> {
        index_to_name_inlined(&self.socket, ifindex).ok().map(|name| name.as_str().to_owned())
    }

    /// The kind of the qdisc at the ingress of a device, `ingress` or `clsact`.
    #[cfg(feature = "ebpf")]
    pub(super) fn ingress_qdisc(mut self, ifindex: u32) -> Result<String, ReaderError> {
        let mut request = TcMessage::with_index(ifindex.cast_signed());
        request.header.parent = TcHandle::INGRESS;
        let mut qdisc = None;
        let request = RouteNetlinkMessage::GetQueueDiscipline(request);
        // Without the echo, kernels before 6.8 tell others only.
        let asked = self.socket.ask(request, NLM_F_REQUEST | NLM_F_ECHO, |kind, payload| {
            qdisc = qdisc.take().or(reply::qdisc(kind, payload)?);
            Ok(())
        });
        asked.map_err(failed("look up a qdisc"))?;
        qdisc.ok_or_else(|| failed("look up a qdisc")(reply::bad("an answer without a qdisc")))
    }

    /// What each device counts, by interface index.
    pub(super) fn stats(&mut self, mut each: impl FnMut(u32, TapStats)) -> Result<Dump, ReaderError> {
        let mut request = StatsMessage::default();
        request.header.filter_mask = StatsFilterMask::Link64;
        let request = RouteNetlinkMessage::GetStats(request);
        let dump = self.socket.ask(request, NLM_F_REQUEST | NLM_F_DUMP, |kind, payload| {
            if let Some((ifindex, stats)) = reply::link_stats(kind, payload)? {
                each(ifindex, stats);
            }
            Ok(())
        });
        dump.map_err(failed("read the counters"))
    }

    fn ask_link(&mut self, name: &str) -> io::Result<Option<(u32, NicKind)>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut link = None;
        let asked = self.socket.ask(RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST, |kind, payload| {
            link = link.or(reply::link(kind, payload)?);
            Ok(())
        });
        match asked {
            Ok(_) if link.is_none() => Err(reply::bad("an answer without a device")),
            Ok(_) => Ok(link),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> ReaderError {
    move |source| ReaderError::Netlink { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_device_can_have_hides_no_other() {
        let mut links = Links::open().expect("a socket");
        let nics = [&"x".repeat(40), "", "lo", "../lo"].map(Nic::local);
        let found = links.find(&nics).expect("those that are there");
        assert_eq!(found.into_values().collect::<Vec<_>>(), [&Nic::local("lo")]);
    }
}
