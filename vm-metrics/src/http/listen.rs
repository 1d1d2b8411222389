//! Listens on the addresses of the configuration, all of them or none.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use thiserror::Error;
use tokio::net::TcpListener;

use super::listeners::Listeners;
use super::port_user;
use super::unix_socket::{GROUP, UnixSocket};
use crate::config::{Listen, ListenAddress};

/// Connections that the kernel queues. A flood must not displace other peers.
const BACKLOG: i32 = 4096;

/// The lowest port that needs no capability.
const FIRST_FREE_PORT: u16 = 1024;

/// Why the server cannot listen on an address.
#[derive(Debug, Error)]
#[error("cannot listen on {address} ({place}): {problem}")]
pub struct ListenError {
    address: String,
    place: String,
    problem: String,
}

/// A TCP address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListenTarget {
    address: SocketAddr,
    /// Index of its entry in the configuration.
    entry: usize,
    /// One of several addresses of an entry: a host without IPv6 listens on the others.
    is_optional: bool,
}

/// Listens on all addresses.
///
/// # Errors
/// On the first address that fails. An address of a name may fail if another address of the name works.
pub fn listen(listen: &Listen) -> Result<Listeners, ListenError> {
    let failed = |entry: usize, problem: String| ListenError {
        address: listen.addresses()[entry].to_string(),
        place: listen.place().to_owned(),
        problem,
    };
    let mut wanted = Vec::new();
    let mut unix = Vec::new();
    for (entry, address) in listen.addresses().iter().enumerate() {
        if let ListenAddress::Unix(path) = address {
            unix.push(UnixSocket::bind(path, GROUP).map_err(|error| failed(entry, error.to_string()))?);
        } else {
            let resolved = address.resolve().map_err(|error| failed(entry, error.to_string()))?;
            let is_optional = resolved.len() > 1;
            wanted.extend(resolved.into_iter().map(|address| ListenTarget { address, entry, is_optional }));
        }
    }
    let wanted = without_covered(&wanted);
    let mut tcp: Vec<(usize, TcpListener)> = Vec::new();
    for (at, one) in wanted.iter().enumerate() {
        let mut address = one.address;
        let before = tcp.iter().find(|(entry, _)| *entry == one.entry).map(|(_, listener)| listener);
        if let (0, Some(before)) = (address.port(), before) {
            // Any free port, but the same one for all addresses of an entry.
            let port = before.local_addr().map_err(|error| failed(one.entry, error.to_string()))?.port();
            address.set_port(port);
        }
        let is_last = wanted[at + 1..].iter().all(|later| later.entry != one.entry);
        match bind(address, takes_ipv4_along(one, &wanted)) {
            Ok(listener) => tcp.push((one.entry, listener)),
            Err(error) if one.is_optional && is_missing(&error) && (before.is_some() || !is_last) => {
                tracing::debug!("not listening on {address}: {error}");
            }
            Err(error) => return Err(failed(one.entry, problem(address, &error))),
        }
    }
    Ok(Listeners::new(tcp.into_iter().map(|(_, listener)| listener).collect(), unix))
}

/// Leaves out duplicates, and addresses that another one includes: the kernel refuses both.
fn without_covered(all: &[ListenTarget]) -> Vec<ListenTarget> {
    let covers = |one: &SocketAddr, other: &SocketAddr| {
        let same_family = one.is_ipv4() == other.is_ipv4();
        one.port() == other.port() && same_family && one.ip().is_unspecified() && !other.ip().is_unspecified()
    };
    let mut left: Vec<ListenTarget> = Vec::new();
    for one in all {
        let is_free_port = one.address.port() == 0;
        let is_there = left.iter().any(|earlier| earlier.address == one.address);
        let is_covered = all.iter().any(|other| covers(&other.address, &one.address));
        if is_free_port || !(is_there || is_covered) {
            left.push(*one);
        }
    }
    left
}

/// `[::]` is all addresses, those of IPv4 too, unless an address of IPv4 has this port.
fn takes_ipv4_along(one: &ListenTarget, all: &[ListenTarget]) -> bool {
    let is_beside = |other: &&ListenTarget| match one.address.port() {
        0 => other.entry == one.entry,
        port => other.address.port() == port,
    };
    !all.iter().filter(is_beside).any(|other| other.address.is_ipv4())
}

fn bind(address: SocketAddr, with_ipv4: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !with_ipv4)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The host has no such address, or no IPv6 at all.
fn is_missing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn problem(address: SocketAddr, error: &io::Error) -> String {
    let another = SocketAddr::new(address.ip(), address.port().wrapping_add(1).max(FIRST_FREE_PORT));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = port_user::of(address);
            format!("{who} listens there: stop it, or choose another address, such as {another}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("no device of this host has the address {}: `ip address` lists them", address.ip())
        }
        io::ErrorKind::PermissionDenied if address.port() < FIRST_FREE_PORT => {
            let ip = match address.ip() {
                IpAddr::V6(ip) => format!("[{ip}]"),
                IpAddr::V4(ip) => ip.to_string(),
            };
            format!("ports below {FIRST_FREE_PORT} need the right CAP_NET_BIND_SERVICE: choose {ip}:10464")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn listening(addresses: &[&str]) -> Result<Listeners, String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        listen(&Listen::new(addresses, "flag --listen")).map_err(|error| error.to_string())
    }

    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_versions() {
        for (form, own) in [(":0", ["0.0.0.0", "::"]), ("localhost:0", ["127.0.0.1", "::1"])] {
            let listeners = listening(&[form]).unwrap();
            let addresses = listeners.tcp_addresses();
            let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            assert_eq!(ips, own, "{form}");
            assert_eq!(addresses[0].port(), addresses[1].port(), "{form}");
            for ip in ["127.0.0.1", "::1"] {
                TcpStream::connect((ip.parse::<IpAddr>().unwrap(), addresses[0].port())).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_ipv4_along_when_alone() {
        let port = free_port();
        let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::]:{port}"));
        let listeners = listening(&[&v6]).unwrap();
        TcpStream::connect(&v4).unwrap();
        drop(listeners);
        let listeners = listening(&[&v6, &v4]).unwrap();
        assert_eq!(listeners.tcp_addresses().len(), 2);
        TcpStream::connect(&v4).unwrap();
    }

    #[tokio::test]
    async fn addresses_that_are_there_twice_are_one() {
        let port = free_port();
        let (all, one) = (format!(":{port}"), format!("127.0.0.1:{port}"));
        let listeners = listening(&[&one, &all, &one, &all, &format!("localhost:{port}")]).unwrap();
        let ips: Vec<bool> = listeners.tcp_addresses().iter().map(SocketAddr::is_ipv4).collect();
        assert_eq!(ips, [true, false]);
    }

    #[tokio::test]
    async fn an_address_in_use_names_its_process() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let program = format!("process {} (", std::process::id());
        for form in [address.clone(), format!(":{}", taken.local_addr().unwrap().port())] {
            let error = listening(&[&form]).unwrap_err();
            let expected = format!("cannot listen on {form} (flag --listen): {program}");
            assert!(error.starts_with(&expected), "{error}");
            assert!(error.contains("stop it, or choose another address, such as "), "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_refused() {
        let error = listening(&["192.0.2.1:10464"]).unwrap_err();
        assert!(error.contains("no device of this host has the address 192.0.2.1"), "{error}");
        let error = listening(&["no-such-host.invalid:10464"]).unwrap_err();
        assert!(
            error.starts_with("cannot listen on no-such-host.invalid:10464 (flag --listen): "),
            "{error}"
        );
    }
}
