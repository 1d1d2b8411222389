//! Resolves names and reads counters of the devices of one namespace, over rtnetlink.
//!
//! `socket` carries a request and its answers. `events` listens to the changes. `reply` parses both. By `filter` the kernel
//! leaves out events of other devices.

mod events;
mod filter;
mod reply;
mod socket;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

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

use super::NetError;
use crate::model::{Nic, NicKind, TapStats, is_device_name};
use crate::net::netns::cookie_of;
pub(crate) use events::{Events, Scope};
pub(crate) use reply::DeletedDevice;
pub(crate) use socket::Dump;
use socket::Socket;

/// The devices of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Links {
    socket: Socket,
    /// What names meant the last time.
    known: HashMap<String, (u32, NicKind)>,
    /// Names that no device had when the kernel was last asked.
    missing: BTreeSet<String>,
    /// The last of them that was asked for again.
    asked: String,
}

/// Names without a device that a tick asks for again, one after the other: it may be there without an event.
const ASK_AGAIN: usize = 64;

impl Links {
    pub(crate) fn open() -> Result<Self, NetError> {
        let socket = Socket::open().map_err(failed("open a socket"))?;
        let (known, missing, asked) = Default::default();
        Ok(Self { socket, known, missing, asked })
    }

    /// What tells the namespace from any other that is or will be; `None` before Linux 5.14.
    pub(crate) fn netns_cookie(&self) -> Option<u64> {
        cookie_of(&self.socket)
    }

    /// Those of the NICs whose devices are there, by interface index; each with its position in some list.
    ///
    /// A name that had no device is asked for again if a device `may_have_come`, and in its turn.
    pub(super) fn find<'v>(
        &mut self,
        nics: impl IntoIterator<Item = (usize, &'v Nic)>,
        may_have_come: impl Fn(&Nic) -> bool,
    ) -> Result<HashMap<u32, (usize, &'v Nic)>, NetError> {
        let turn = self.next_turn();
        let mut found = HashMap::new();
        let mut missing = BTreeSet::new();
        for (at, nic) in nics {
            let name = nic.tap.as_str();
            let waits = self.missing.contains(name) && !turn.contains(name) && !may_have_come(nic);
            let ifindex = if waits { None } else { self.index_of(name)? };
            match ifindex {
                Some(ifindex) => drop(found.insert(ifindex, (at, nic))),
                None => drop(missing.insert(name.to_owned())),
            }
        }
        self.missing = missing;
        self.known.retain(|name, (ifindex, _)| found.get(ifindex).is_some_and(|(_, nic)| nic.tap == *name));
        Ok(found)
    }

    /// Whether a NIC of the last search had this name.
    pub(crate) fn was_asked_for(&self, name: &str) -> bool {
        self.known.contains_key(name) || self.missing.contains(name)
    }

    /// The names without a device whose turn it is.
    fn next_turn(&mut self) -> BTreeSet<String> {
        let after = self.missing.range::<String, _>((Bound::Excluded(&self.asked), Bound::Unbounded));
        let turn: Vec<String> = after.chain(&self.missing).take(ASK_AGAIN).cloned().collect();
        self.asked = turn.last().cloned().unwrap_or_default();
        turn.into_iter().collect()
    }

    /// The device that has this name now.
    ///
    /// By SIOCGIFNAME, which is cheap, where the name was known; else by RTM_GETLINK. SIOCGIFINDEX would be one call,
    /// but it makes the kernel start modprobe for each name that it does not know.
    pub(crate) fn index_of(&mut self, name: &str) -> Result<Option<u32>, NetError> {
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

    /// Asks whether a device has this name now, be it an alternative one.
    #[cfg(feature = "ebpf")]
    pub(crate) fn has_name(&mut self, ifindex: u32, name: &str) -> bool {
        let is_it = |(now, _): (u32, NicKind)| now == ifindex;
        index_to_name_inlined(&self.socket, ifindex).is_ok_and(|now| now.as_str() == name)
            || self.ask_link(name).is_ok_and(|link| link.is_some_and(is_it))
    }

    /// What kind of device one is that was looked up by this name.
    pub(crate) fn kind_of(&self, name: &str) -> NicKind {
        self.known.get(name).map(|(_, kind)| *kind).unwrap_or_default()
    }

    /// The name of a device; `None` when it is not there, and an error when the kernel does not say.
    #[cfg(feature = "ebpf")]
    pub(crate) fn name_of(&self, ifindex: u32) -> Result<Option<String>, NetError> {
        match index_to_name_inlined(&self.socket, ifindex) {
            Ok(name) => Ok(Some(name.as_str().to_owned())),
            Err(Errno::NODEV | Errno::NXIO) => Ok(None),
            Err(errno) => Err(failed("look up the name of a device")(errno.into())),
        }
    }

    /// The kind of the qdisc at the ingress of a device, `ingress` or `clsact`.
    #[cfg(feature = "ebpf")]
    pub(crate) fn ingress_qdisc(mut self, ifindex: u32) -> Result<String, NetError> {
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
    pub(crate) fn stats(&mut self, mut each: impl FnMut(u32, TapStats)) -> Result<Dump, NetError> {
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

    /// What one device counts; `None` when it is not there.
    pub(crate) fn stats_of(&mut self, ifindex: u32) -> Result<Option<TapStats>, NetError> {
        let mut request = StatsMessage::default();
        request.header.ifindex = ifindex;
        request.header.filter_mask = StatsFilterMask::Link64;
        let mut found = None;
        let asked =
            self.socket.ask(RouteNetlinkMessage::GetStats(request), NLM_F_REQUEST, |kind, payload| {
                let is_it = |(of, _): &(u32, TapStats)| *of == ifindex;
                found =
                    found.take().or(reply::link_stats(kind, payload)?.filter(is_it).map(|(_, stats)| stats));
                Ok(())
            });
        match asked {
            Ok(_) => Ok(found),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(failed("read the counters")(error)),
        }
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

/// Tells the network namespace of this thread from any other; `None` before Linux 5.14.
#[cfg(feature = "ebpf")]
pub(crate) fn own_netns_cookie() -> Option<u64> {
    Links::open().ok()?.netns_cookie()
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> NetError {
    move |source| NetError::Netlink { operation, source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_name_hides_no_other_device() {
        let mut links = Links::open().expect("a socket");
        let nics = [&"x".repeat(40), "", "lo", "../lo"].map(Nic::local);
        let found = links.find(nics.iter().enumerate(), |_| false).expect("those that are there");
        assert_eq!(found.into_values().collect::<Vec<_>>(), [(2, &Nic::local("lo"))]);
    }

    #[test]
    fn missing_names_are_asked_for_in_turns() {
        let mut links = Links::open().expect("a socket");
        let nics: Vec<Nic> = (0..3 * ASK_AGAIN).map(|at| Nic::local(format!("none{at:04}"))).collect();
        links.find(nics.iter().enumerate(), |_| false).expect("none is there");
        assert_eq!(links.missing.len(), 3 * ASK_AGAIN);
        let mut asked = BTreeSet::new();
        for _ in 0..3 {
            let turn = links.next_turn();
            assert_eq!(turn.len(), ASK_AGAIN);
            asked.extend(turn);
        }
        assert_eq!(asked, links.missing);
        links.find(nics[..1].iter().enumerate(), |_| false).expect("none is there");
        assert_eq!(links.next_turn().len(), 1, "others are forgotten");
    }

    #[test]
    fn one_device_is_asked_what_it_counts() {
        let mut links = Links::open().expect("a socket");
        assert!(links.stats_of(1).expect("the loopback").is_some());
        assert_eq!(links.stats_of(u32::MAX >> 1).expect("no such device"), None);
    }
}
