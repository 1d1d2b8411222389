//! Queries the kernel for the user at the other end of a local TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::retry_on_intr;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`, of the question and of its answer.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
const QUESTION: usize = HEADER + 56;
/// Addresses and ports of `inet_diag_sockid`, which question and answer have alike.
const IDS: usize = 36;
const IDS_ASKED: usize = HEADER + 8;
const IDS_ANSWERED: usize = HEADER + 4;
const UID: usize = HEADER + 64;
const INODE: usize = HEADER + 68;

/// Limit of leftover answers to earlier questions, which are skipped.
const MAX_LEFTOVER: usize = 16;

/// The owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    User(u32),
    /// The socket is closed, so an answer has no reader.
    Closed,
    /// No socket of this network namespace.
    Elsewhere,
}

/// A socket to the kernel's `sock_diag`, which needs no rights.
#[derive(Debug)]
pub(crate) struct SocketOwners {
    fd: OwnedFd,
    sequence: u32,
}

impl SocketOwners {
    pub(crate) fn open() -> io::Result<Self> {
        let (flags, protocol) = (SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG));
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The owner of the end at `client` of the connection from `client` to `server`.
    pub(crate) fn of(&mut self, client: SocketAddr, server: SocketAddr) -> io::Result<Owner> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, client, server);
        retry_on_intr(|| send(&self.fd, &question, SendFlags::empty()))?;
        let mut answer = [0; 512];
        for _ in 0..MAX_LEFTOVER {
            // The kernel has answered when `send` returns.
            let (length, _) = retry_on_intr(|| recv(&self.fd, &mut answer[..], RecvFlags::DONTWAIT))?;
            let answer = &answer[..length];
            if u32_at(answer, 8) == Some(self.sequence) {
                return read(answer, &question[IDS_ASKED..][..IDS]);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn question(sequence: u32, client: SocketAddr, server: SocketAddr) -> [u8; QUESTION] {
    let mut message = [0; QUESTION];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(QUESTION as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(8, &sequence.to_ne_bytes());
    let family = if client.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    put(HEADER, &[family as u8, libc::IPPROTO_TCP as u8]);
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    let ids = [(client, 0, 4), (server, 2, 20)];
    for (end, port, address) in ids {
        put(IDS_ASKED + port, &end.port().to_be_bytes());
        match end.ip() {
            IpAddr::V4(ip) => put(IDS_ASKED + address, &ip.octets()),
            IpAddr::V6(ip) => put(IDS_ASKED + address, &ip.octets()),
        }
    }
    if let SocketAddr::V6(client) = client {
        put(IDS_ASKED + IDS, &client.scope_id().to_ne_bytes());
    }
    // `INET_DIAG_NOCOOKIE`: any socket with these addresses.
    put(IDS_ASKED + IDS + 4, &[0xff; 8]);
    message
}

/// `nlmsghdr` and `inet_diag_msg`, or `nlmsgerr`.
fn read(answer: &[u8], ids: &[u8]) -> io::Result<Owner> {
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    if kind != Some(BY_FAMILY) {
        let errno = u32_at(answer, HEADER).map_or(0, |errno| errno.cast_signed().wrapping_neg());
        return match errno {
            libc::ENOENT => Ok(Owner::Elsewhere),
            _ => Err(io::Error::from_raw_os_error(errno)),
        };
    }
    let (Some(uid), Some(inode)) = (u32_at(answer, UID), u32_at(answer, INODE)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    // Without such a connection the kernel names a listener on the port.
    if answer.get(IDS_ANSWERED..IDS_ANSWERED + IDS) != Some(ids) {
        return Ok(Owner::Elsewhere);
    }
    // The kernel forgets the user of a socket without a file; older kernels report root.
    Ok(if inode == 0 { Owner::Closed } else { Owner::User(uid) })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn owner(client: SocketAddr, server: SocketAddr) -> Owner {
        SocketOwners::open().unwrap().of(client, server).unwrap()
    }

    #[test]
    fn a_local_connection_belongs_to_its_user() {
        let me = rustix::process::getuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let server = listener.local_addr().unwrap();
            let stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            assert_eq!(owner(client, server), Owner::User(me), "{address}");
            drop(stream);
            assert_ne!(owner(client, server), Owner::User(me), "{address}: closed");
        }
    }

    /// Somebody far away may use the port of a local listener as his own.
    #[test]
    fn a_listener_is_not_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(owner(address, "127.0.0.1:1".parse().unwrap()), Owner::Elsewhere);
        assert_eq!(owner("192.0.2.1:7".parse().unwrap(), address), Owner::Elsewhere);
    }

    #[test]
    fn short_answers_are_errors() {
        let ids = [0; IDS];
        for length in 0..INODE + 4 {
            let mut answer = vec![0; length];
            if let Some(kind) = answer.get_mut(4..6) {
                kind.copy_from_slice(&BY_FAMILY.to_ne_bytes());
            }
            assert!(read(&answer, &ids).is_err(), "{length}");
        }
    }
}
