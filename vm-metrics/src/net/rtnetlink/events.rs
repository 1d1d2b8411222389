//! Listens to events of devices: final counters of the deleted, names of the new.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::filter::{self, Wanted};
use super::reply::{self, DeletedDevice, NamedDevice};
use crate::model::{Device, DeviceExit, DeviceId};

/// `RTMGRP_LINK`
const LINKS: u32 = 1;

/// A message of one device is one to two KiB.
const BUFFER: usize = 32 << 10;

/// Rounds for which last counters are kept: a device may go in the middle of one, and is missed in the next.
const ROUNDS: u64 = 2;

/// Messages that are taken at once: who makes them faster than they are read must not hold up a tick.
const AT_ONCE: usize = 1 << 14;

/// How much is heard of a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    wanted: Wanted,
    /// In bytes, as the kernel accounts for them: 2 to 4 KiB per message.
    queue: usize,
    /// Deleted devices that are remembered.
    deleted: usize,
}

impl Scope {
    /// This process's own namespace: also other names of devices are heard.
    pub(crate) const OWN: Self = Self { wanted: Wanted::Any, queue: 4 << 20, deleted: 1 << 15 };
    /// A namespace in which a trusted user has VMs.
    pub(crate) const TRUSTED: Self = Self { wanted: Wanted::Any, queue: 2 << 20, deleted: 1 << 13 };
    /// Any other namespace: who has devices come and go there without end loses counters of one's own.
    pub(crate) const STRANGER: Self = Self { wanted: Wanted::ComeAndGo, queue: 384 << 10, deleted: 1 << 9 };
    /// The kernel refuses so large a queue.
    #[cfg(test)]
    pub(crate) const REFUSED: Self = Self { queue: usize::MAX, ..Self::OWN };
}

/// The changes of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Events {
    fd: OwnedFd,
    scope: Scope,
    buffer: Vec<u8>,
    /// The devices that have gone, the latest last.
    gone: Vec<GoneDevice>,
    /// Names that devices were given since the round began.
    appeared: HashSet<String>,
    /// Whether something else has happened to a device since then.
    is_touched: bool,
    /// What the devices are called, as far as it was heard.
    names: HashMap<u32, String>,
    round: u64,
}

/// A device that is not here any more.
#[derive(Debug)]
struct GoneDevice {
    round: u64,
    message: DeletedDevice,
    /// Which device it was; `None` until that was asked.
    device: Option<Device>,
    /// Whether a round has read it, or its final counters were handed out.
    is_settled: bool,
}

impl Events {
    pub(crate) fn open(scope: Scope) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        // Beyond what the host allows everybody, where this process may.
        set_socket_recv_buffer_size_force(&fd, scope.queue)
            .or_else(|_| set_socket_recv_buffer_size(&fd, scope.queue))?;
        if let Err(error) = filter::attach(&fd, scope.wanted) {
            tracing::debug!("events of all devices are heard: {error}");
        }
        bind(&fd, &SocketAddrNetlink::new(0, LINKS))?;
        Ok(Self {
            fd,
            scope,
            buffer: vec![0; BUFFER],
            gone: Vec::new(),
            appeared: HashSet::new(),
            is_touched: false,
            names: HashMap::new(),
            round: 0,
        })
    }

    /// Forgets the last counters of devices that are gone for long.
    pub(crate) fn begin_round(&mut self) {
        self.round += 1;
        let round = self.round;
        self.gone.retain(|gone| round - gone.round < ROUNDS);
        self.appeared.clear();
        self.is_touched = false;
    }

    /// Takes in what has happened since it was last called. True when some of it was lost, for the queue was full.
    pub(crate) fn take(&mut self) -> io::Result<bool> {
        let mut lost = false;
        for _ in 0..AT_ONCE {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(len) => {
                    let buffer = mem::take(&mut self.buffer);
                    // A message that cannot be read is no reason to miss the others.
                    let _ = reply::unasked(&buffer[..len], |kind, payload| {
                        if let Some(device) = reply::deleted(kind, payload)? {
                            lost |= !self.delete(device);
                        } else if let Some(device) = reply::appeared(kind, payload)? {
                            self.appear(device);
                        }
                        Ok(())
                    });
                    self.buffer = buffer;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => {
                    lost = true;
                    self.names.clear();
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(lost)
    }

    /// False when there is no room to remember it.
    fn delete(&mut self, message: DeletedDevice) -> bool {
        self.names.remove(&message.ifindex);
        let has_room = self.gone.len() < self.scope.deleted;
        if has_room {
            let round = self.round;
            self.gone.push(GoneDevice { round, message, device: None, is_settled: false });
        }
        has_room
    }

    /// Asks once about each device that has gone which one it was, and whether a round has read it.
    pub(crate) fn identify(&mut self, mut which: impl FnMut(&DeletedDevice) -> (Device, bool)) {
        for gone in self.gone.iter_mut().filter(|gone| gone.device.is_none()) {
            let (device, was_read) = which(&gone.message);
            (gone.device, gone.is_settled) = (Some(device), was_read);
        }
    }

    fn appear(&mut self, NamedDevice { ifindex, name }: NamedDevice) {
        if self.names.get(&ifindex) == Some(&name) {
            self.is_touched = true;
        } else {
            self.names.insert(ifindex, name.clone());
            self.appeared.insert(name);
        }
    }

    /// Whether a device is up or down now, or attached to a process.
    pub(crate) fn has_touched(&self) -> bool {
        self.is_touched
    }

    /// Whether a device has come, has gone or has another name since the round began.
    pub(crate) fn has_changes(&self) -> bool {
        !self.appeared.is_empty() || self.gone.iter().any(|gone| gone.round == self.round)
    }

    /// Whether a device was given this name since the round began.
    pub(crate) fn has_appeared(&self, name: &str) -> bool {
        self.appeared.contains(name)
    }

    /// What a device had counted when it went, and what became of it.
    pub(crate) fn final_counters(&self, device: DeviceId) -> Option<&DeletedDevice> {
        let is_it = |gone: &&GoneDevice| gone.device.is_some_and(|gone| gone.id == device);
        self.gone.iter().rev().find(is_it).map(|gone| &gone.message)
    }

    /// Each deleted device with such a name that no round has read, once, the latest first.
    pub(crate) fn take_unread(&mut self, is_meant: impl Fn(&str) -> bool) -> Vec<(Device, DeletedDevice)> {
        let is_unread = |gone: &&mut GoneDevice| {
            !gone.is_settled && gone.message.exit == DeviceExit::Deleted && is_meant(&gone.message.name)
        };
        let unread = self.gone.iter_mut().rev().filter(is_unread).filter_map(|gone| {
            gone.is_settled = gone.device.is_some();
            Some((gone.device?, gone.message.clone()))
        });
        unread.collect()
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<usize, Errno> {
        let (fd, buffer) = (&self.fd, &mut self.buffer);
        retry_on_intr(|| recv(fd, &mut buffer[..], flags)).map(|(read, _)| read)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NicKind, TapStats};

    fn deleted(ifindex: u32, name: &str, rx_bytes: u64) -> DeletedDevice {
        let stats = TapStats { rx_bytes, ..TapStats::default() };
        DeletedDevice { ifindex, name: name.into(), kind: NicKind::Tap, stats, exit: DeviceExit::Deleted }
    }

    fn bytes(unread: &[(Device, DeletedDevice)]) -> Vec<u64> {
        unread.iter().map(|(_, message)| message.stats.rx_bytes).collect()
    }

    /// A device that was found, with its index as its generation.
    fn device(ifindex: u32) -> Device {
        let id = DeviceId { ifindex, generation: ifindex.into(), ..DeviceId::default() };
        Device { id, ..Device::default() }
    }

    #[test]
    fn each_device_of_a_name_is_remembered() {
        let mut events = Events::open(Scope::OWN).unwrap();
        events.begin_round();
        for (ifindex, rx_bytes) in [(5, 50), (6, 60), (7, 70)] {
            assert!(events.delete(deleted(ifindex, "tap0", rx_bytes)));
        }
        events.identify(|gone| (device(gone.ifindex), gone.ifindex == 5));
        let last = |ifindex| events.final_counters(device(ifindex).id).map(|last| last.stats.rx_bytes);
        assert_eq!([5, 6, 7, 8].map(last), [Some(50), Some(60), Some(70), None]);
        assert_eq!(bytes(&events.take_unread(|name| name == "tap0")), [70, 60]);
        assert_eq!(bytes(&events.take_unread(|_| true)), [0; 0], "each once");
        events.begin_round();
        assert!(events.final_counters(device(5).id).is_some(), "one more round");
        events.begin_round();
        assert!(events.final_counters(device(5).id).is_none());
    }

    #[test]
    fn what_cannot_be_remembered_is_lost() {
        let mut events = Events::open(Scope { deleted: 2, ..Scope::OWN }).unwrap();
        let remembered = [5, 6, 7].map(|ifindex| events.delete(deleted(ifindex, "tap0", 1)));
        assert_eq!(remembered, [true, true, false]);
    }
}
