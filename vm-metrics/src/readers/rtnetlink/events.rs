//! What the kernel says of its own accord when devices come and go: the last counters of those that are deleted, and a
//! reason to look again.

use std::collections::HashMap;
use std::io;
use std::mem;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::reply::{self, Deleted};
use crate::model::{Gone, NicSource, TapReading};

/// `RTMGRP_LINK`
const LINKS: u32 = 1;

/// A message of one device is one to two KiB.
const BUFFER: usize = 32 << 10;

/// For bursts: about a thousand devices that change between two looks.
const QUEUE: usize = 2 << 20;

/// Rounds for which last counters are kept: a device may go in the middle of one, and is missed in the next.
const ROUNDS: u64 = 2;

/// The changes of the network namespace in which it was opened.
#[derive(Debug)]
pub(in crate::readers) struct Events {
    fd: OwnedFd,
    buffer: Vec<u8>,
    deleted: HashMap<String, Last>,
    /// By index, those that nobody has asked for yet.
    departed: Vec<(u32, Gone)>,
    round: u64,
}

/// A device that is not here any more.
#[derive(Debug)]
struct Last {
    round: u64,
    reading: TapReading,
    gone: Gone,
}

impl Events {
    pub(in crate::readers) fn open() -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_recv_buffer_size(&fd, QUEUE)?;
        bind(&fd, &SocketAddrNetlink::new(0, LINKS))?;
        Ok(Self { fd, buffer: vec![0; BUFFER], deleted: HashMap::new(), departed: Vec::new(), round: 0 })
    }

    /// Forgets the last counters of devices that are gone for long.
    pub(in crate::readers) fn begin_round(&mut self) {
        self.round += 1;
        let round = self.round;
        self.deleted.retain(|_, last| round - last.round < ROUNDS);
    }

    /// Takes in what has happened since it was last called. True when some of it was lost, for the queue was full.
    pub(in crate::readers) fn take(&mut self) -> io::Result<bool> {
        let round = self.round;
        let mut lost = false;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(len) => {
                    // A message that cannot be read is no reason to miss the others.
                    let _ = reply::unasked(&self.buffer[..len], |kind, payload| {
                        if let Some(Deleted { ifindex, name, kind, stats, gone }) =
                            reply::deleted(kind, payload)?
                        {
                            let reading = TapReading { ifindex, source: NicSource::Netlink, kind, stats };
                            self.deleted.insert(name, Last { round, reading, gone });
                            self.departed.push((ifindex, gone));
                        }
                        Ok(())
                    });
                }
                Err(Errno::AGAIN) => return Ok(lost),
                Err(Errno::NOBUFS) => lost = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The devices that have gone since somebody asked, by index.
    pub(in crate::readers) fn take_departed(&mut self) -> Vec<(u32, Gone)> {
        mem::take(&mut self.departed)
    }

    /// What a device of that name had counted when it was deleted.
    pub(in crate::readers) fn last_counters(&self, name: &str) -> Option<TapReading> {
        self.deleted.get(name).map(|last| last.reading)
    }

    /// What became of it.
    pub(in crate::readers) fn gone(&self, name: &str) -> Option<Gone> {
        self.deleted.get(name).map(|last| last.gone)
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
