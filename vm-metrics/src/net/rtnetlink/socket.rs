//! Request and response over one rtnetlink socket.

use std::io;
use std::time::Duration;

use netlink_packet_core::{DecodeError, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::reply;

/// The kernel answers within the call, or has lost memory for it: a tick must not wait for ever.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The kernel makes no datagram of a dump longer than 32 KiB; what it says of one device is a few KiB.
const BUFFER: usize = 64 << 10;

/// Answers to a former question that are thrown away before the next one.
const MAX_LEFTOVER: usize = 4096;

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    Complete,
    /// Devices came or went meanwhile, or memory ran short: each answer is right, but some may be missing.
    Interrupted,
}

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    /// The last answer may not have been read to its end.
    leftover: bool,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(TIMEOUT))?;
        // To the kernel: nobody else can send to this socket then.
        connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER], leftover: false })
    }

    /// Hands over the type and payload of each message of the answer.
    pub(super) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
    ) -> io::Result<Dump> {
        if self.leftover {
            self.throw_away();
        }
        self.leftover = true;
        self.send(request, flags)?;
        let mut interrupted = false;
        loop {
            let len = match self.receive(RecvFlags::empty()) {
                Ok(len) => len,
                Err(error) if is(&error, Errno::NOBUFS) => return Ok(Dump::Interrupted),
                Err(error) if is(&error, Errno::AGAIN) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within a second"));
                }
                Err(error) => return Err(error),
            };
            let said = reply::read(&self.buffer[..len], self.sequence, &mut each)?;
            interrupted |= said.interrupted;
            if said.done {
                self.leftover = false;
                return Ok(if interrupted { Dump::Interrupted } else { Dump::Complete });
            }
        }
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        retry_on_intr(|| send(&self.fd, &bytes, SendFlags::empty()))?;
        Ok(())
    }

    /// The length of the datagram that is now in the buffer.
    fn receive(&mut self, flags: RecvFlags) -> io::Result<usize> {
        let (fd, buffer) = (&self.fd, &mut self.buffer);
        let (read, len) = retry_on_intr(|| recv(fd, &mut buffer[..], flags | RecvFlags::TRUNC))?;
        if len > read { Err(reply::bad("an answer longer than the buffer")) } else { Ok(read) }
    }

    /// The kernel refuses a dump while another one goes on; reading drives that one to its end.
    fn throw_away(&mut self) {
        for _ in 0..MAX_LEFTOVER {
            if self.receive(RecvFlags::DONTWAIT).is_err_and(|error| is(&error, Errno::AGAIN)) {
                break;
            }
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::rtnetlink::reply::tests::{done, message, stats};
    use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_ERROR};
    use netlink_packet_route::stats::StatsMessage;
    use rustix::net::socketpair;

    /// The sequence number of the first question.
    const FIRST: u32 = 1;

    /// A socket whose kernel has already answered.
    fn answered(datagrams: &[Vec<u8>]) -> (Socket, OwnedFd) {
        let (fd, kernel) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        set_socket_timeout(&fd, Timeout::Recv, Some(Duration::from_millis(10))).unwrap();
        for datagram in datagrams {
            send(&kernel, datagram, SendFlags::empty()).unwrap();
        }
        (Socket { fd, sequence: FIRST - 1, buffer: vec![0; BUFFER], leftover: false }, kernel)
    }

    fn ask(socket: &mut Socket) -> (usize, io::Result<Dump>) {
        let mut messages = 0;
        let request = RouteNetlinkMessage::GetStats(StatsMessage::default());
        let dump = socket.ask(request, 0, |_, _| {
            messages += 1;
            Ok(())
        });
        (messages, dump)
    }

    #[test]
    fn an_answer_may_come_in_parts() {
        let ours = || stats(FIRST, 3, &[1; 25]);
        let datagrams = [done(0, 99, 0), [ours(), ours()].concat(), ours(), done(0, FIRST, 0)];
        let (messages, dump) = ask(&mut answered(&datagrams).0);
        assert_eq!((messages, dump.unwrap()), (3, Dump::Complete));
    }

    #[test]
    fn an_interruption_anywhere_is_remembered() {
        let datagrams = [done(NLM_F_DUMP_INTR, 99, 0), done(NLM_F_DUMP_INTR, FIRST, 0)];
        assert_eq!(ask(&mut answered(&datagrams).0).1.unwrap(), Dump::Interrupted);
        let interrupted = message(92, NLM_F_DUMP_INTR | 2, FIRST, &[0; 12]);
        let datagrams = [interrupted, done(0, FIRST, 0)];
        assert_eq!(ask(&mut answered(&datagrams).0).1.unwrap(), Dump::Interrupted);
    }

    #[test]
    fn silence_and_what_is_too_long_are_errors() {
        let kind = |datagrams: &[Vec<u8>]| ask(&mut answered(datagrams).0).1.unwrap_err().kind();
        assert_eq!(kind(&[]), io::ErrorKind::TimedOut);
        assert_eq!(kind(&[stats(FIRST, 3, &[1; 25])]), io::ErrorKind::TimedOut);
        assert_eq!(kind(&[vec![0; BUFFER + 1]]), io::ErrorKind::InvalidData);
    }

    #[test]
    fn leftovers_of_an_answer_are_discarded() {
        let refusal = message(NLMSG_ERROR, 0, FIRST, &(-16_i32).to_ne_bytes());
        let (mut socket, kernel) = answered(&[refusal, vec![0; BUFFER + 1], done(0, FIRST + 1, 0)]);
        assert_eq!(ask(&mut socket).1.unwrap_err().raw_os_error(), Some(16));
        assert_eq!(ask(&mut socket).1.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(socket.leftover);
        drop(kernel);
    }
}
