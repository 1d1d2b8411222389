//! Decides whether a listener counts as the daemon.
//!
//! Any user of the host can listen at the daemon's port while the daemon is away.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::unistd::{User, geteuid};
use thiserror::Error;

use crate::http::port_user::{Listener, user_name};
use crate::http::socket_owner::{Owner, SocketOwners};

/// The user of the service, as in the systemd unit.
const SERVICE: &str = "vm-metrics";

/// A listener that is not trusted to be the daemon.
#[derive(Debug, Error)]
#[error(
    "{who} of user {user} listens at {place} and is not believed to be the daemon: stop it, or run this command as \
     that user"
)]
pub(crate) struct Stranger {
    who: String,
    user: String,
    place: String,
}

/// Trusts root, the service and the user of this process.
pub(super) fn check(listener: &Listener, place: &impl Display) -> Result<(), Stranger> {
    let uid = listener.uid;
    let is_service = || User::from_name(SERVICE).ok().flatten().is_some_and(|user| user.uid.as_raw() == uid);
    if uid == 0 || uid == geteuid().as_raw() || is_service() {
        return Ok(());
    }
    let who = listener.program.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
    Err(Stranger { who, user: user_name(uid), place: place.to_string() })
}

/// The user of the other end of a connection that has been accepted.
pub(super) fn far_end(near: SocketAddr, far: SocketAddr) -> io::Result<u32> {
    let mut owners = SocketOwners::open()?;
    // A socket for all addresses of IPv6 also takes those of IPv4, under names of IPv6.
    for [far, near] in [[far, near], [far, near].map(mapped)] {
        if let Owner::User(uid) = owners.of(far, near)? {
            return Ok(uid);
        }
    }
    Err(io::Error::other("the kernel does not know the user of the answer"))
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn accepted_connections_have_a_user() {
        let me = geteuid().as_raw();
        for own in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(own) else { continue };
            let port = listener.local_addr().unwrap().port();
            let ip = if own.starts_with("[::1]") { "::1" } else { "127.0.0.1" };
            let stream = TcpStream::connect((ip, port)).unwrap();
            let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let accepted = listener.accept().unwrap();
            assert_eq!(far_end(near, far).unwrap(), me, "{own}");
            drop(accepted);
            assert!(far_end(near, far).is_err(), "{own}: closed");
        }
    }
}
