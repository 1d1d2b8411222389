//! The peer of a connection: a user of this host, or an address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::socket_owner::{Owner, SocketOwners};

/// Size and first of the uid blocks. A host assigns such a block to one user or one container.
const BLOCK: u32 = 1 << 16;

/// The limits apply to each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// All users of a block count as its first.
    User(u32),
    /// For IPv6 the /64 network: a host may use every address of it.
    Address(IpAddr),
    /// The kernel does not know the user.
    Unknown,
}

impl Peer {
    pub(super) fn user(uid: u32) -> Self {
        Self::User(if uid < BLOCK { uid } else { uid - uid % BLOCK })
    }

    fn address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) if *uid >= BLOCK => write!(f, "the users from {uid} on"),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Address(IpAddr::V6(ip)) => write!(f, "{ip}/64"),
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Unknown => write!(f, "somebody"),
        }
    }
}

/// Finds the peers of TCP connections.
#[derive(Debug)]
pub(super) struct TcpPeers(Option<SocketOwners>);

impl TcpPeers {
    /// `listener` is an address of the server. The query for it shows whether the kernel answers at all.
    pub(super) fn new(listener: Option<io::Result<SocketAddr>>) -> Self {
        let Some(listener) = listener else { return Self(None) };
        let owners = SocketOwners::open().and_then(|mut owners| {
            match owners.of(canonical(listener?), SocketAddr::from(([0, 0, 0, 0], 0)))? {
                Owner::User(_) => Ok(owners),
                // A kernel without the module answers so for every socket.
                Owner::Closed | Owner::Elsewhere => {
                    Err(io::Error::other("the kernel shows no owners of sockets (module tcp_diag)"))
                }
            }
        });
        Self(
            owners
                .inspect_err(|error| {
                    tracing::warn!("all users of this host share their connections: {error}")
                })
                .ok(),
        )
    }

    /// `None` when the peer has closed its end already.
    pub(super) fn of(&mut self, client: SocketAddr, server: SocketAddr) -> Option<Peer> {
        let (client, server) = (canonical(client), canonical(server));
        match self.0.as_mut().map(|owners| owners.of(client, server)) {
            Some(Ok(Owner::User(uid))) => Some(Peer::user(uid)),
            Some(Ok(Owner::Closed)) => None,
            // No other namespace has a way to this loopback: the socket is gone.
            Some(Ok(Owner::Elsewhere)) if client.ip().is_loopback() => None,
            // Of another host or namespace; or the kernel had no memory for an answer.
            Some(Ok(Owner::Elsewhere) | Err(_)) | None => Some(Peer::address(client.ip())),
        }
    }
}

/// IPv4 in IPv6 is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => address,
        _ => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_networks_and_user_blocks_are_one_peer() {
        let address = |text: &str| Peer::address(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(Peer::user(165_536), Peer::user(165_537));
        assert_ne!(Peer::user(1000), Peer::user(1001));
        assert_eq!(Peer::user(u32::MAX), Peer::User(u32::MAX - (BLOCK - 1)));
    }

    #[test]
    fn any_listener_shows_that_the_kernel_answers() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            assert!(TcpPeers::new(Some(listener.local_addr())).0.is_some(), "{address}");
        }
    }

    #[test]
    fn mapped_addresses_are_looked_up_as_ipv4() {
        let mapped = canonical("[::ffff:127.0.0.1]:10464".parse().unwrap());
        assert_eq!(mapped, "127.0.0.1:10464".parse().unwrap());
        let scoped = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 7));
        assert_eq!(canonical(scoped), scoped);
    }
}
