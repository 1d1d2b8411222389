//! Names the process that listens on a TCP port.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use crate::host::Host;

/// `TCP_LISTEN`, as the kernel's table has it.
const LISTENING: &str = "0A";

/// Limit of the whole search: a name in an error is worth no more, and processes can hang.
const PATIENCE: Duration = Duration::from_millis(200);

/// User and process of a listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) uid: u32,
    pub(crate) program: Option<Program>,
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) pid: u32,
    name: String,
}

/// A line of `/proc/net/tcp`.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

impl Program {
    /// `None` for a process that is gone, or is in a namespace from which it has no pid here.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let name = fs::read(Host::default().process(pid).join("comm")).ok()?;
        Some(Self { pid, name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned() })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({:?})", self.pid, self.name)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(f, "{program}"),
            None => write!(f, "a process of the user {}", user_name(self.uid)),
        }
    }
}

/// Describes the process that occupies the address, as far as it is known.
pub(crate) fn of(address: SocketAddr) -> String {
    find(address).map_or_else(|| "another process".to_owned(), |listener| listener.to_string())
}

/// Whether this process listens. If its descriptors are unreadable, the user decides.
pub(crate) fn is_process(address: SocketAddr, pid: u32, uid: u32) -> bool {
    let is_it =
        |listener: Listener| listener.program.map_or(listener.uid == uid, |program| program.pid == pid);
    find(address).is_some_and(is_it)
}

/// Finds the listener of the address, within the time limit.
pub(crate) fn find(address: SocketAddr) -> Option<Listener> {
    let until = Instant::now() + PATIENCE;
    let (found, answers) = mpsc::channel();
    let look = move || look(address, until, &found);
    thread::Builder::new().name("port-user".to_owned()).spawn(look).ok()?;
    let mut listener = None;
    while let Ok(better) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        listener = Some(better);
    }
    listener
}

/// Sends the user first, which needs no file of a process. The thread may hang as long as a hostile process lives.
fn look(address: SocketAddr, until: Instant, found: &mpsc::Sender<Listener>) {
    let host = Host::default();
    let tables = ["net/tcp", "net/tcp6"].map(|table| File::open(host.process_itself().join(table)));
    // After a line of titles, the kernel lists listening sockets first.
    let sockets = tables.into_iter().flatten().flat_map(|table| {
        let lines = BufReader::new(table).lines().map_while(Result::ok);
        lines.skip(1).map_while(|line| listening(&line))
    });
    let mut in_time = sockets.take_while(|_| Instant::now() < until);
    let Some(socket) = in_time.find(|socket| overlap(socket.address, address)) else {
        return;
    };
    let uid = socket.uid;
    let tell = |program| found.send(Listener { uid, program }).is_ok();
    if tell(None)
        && let Some(program) = holder(&host, &socket, until).and_then(Program::of)
    {
        tell(Some(program));
    }
}

pub(crate) fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// The process of the socket's user that has a descriptor of the socket.
fn holder(host: &Host, socket: &Socket, until: Instant) -> Option<u32> {
    let wanted = format!("socket:[{}]", socket.inode);
    let is_user = |pid: &u32| fs::metadata(host.process(*pid)).is_ok_and(|of| of.uid() == socket.uid);
    let holds = |pid: &u32| {
        let Ok(descriptors) = fs::read_dir(host.process(*pid).join("fd")) else { return false };
        let mut in_time = descriptors.flatten().take_while(|_| Instant::now() < until);
        in_time.any(|one| fs::read_link(one.path()).is_ok_and(|target| target == Path::new(&wanted)))
    };
    let entries = fs::read_dir(host.proc()).ok()?.flatten().take_while(|_| Instant::now() < until);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| is_user(pid) && holds(pid))
}

/// Whether a listener on one address blocks the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let [first, second] = [one.ip(), other.ip()].map(|ip| ip.to_canonical());
    let same_family = first.is_ipv4() == second.is_ipv4();
    let takes_all =
        |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || (same_family && ip.is_unspecified());
    one.port() == other.port() && (first == second || takes_all(first) || takes_all(second))
}

/// A socket that listens.
fn listening(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, LISTENING, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    Some(Socket { address: address(local)?, uid: uid.parse().ok()?, inode: inode.parse().ok()? })
}

/// Words of 32 bits in the order of the machine, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_named() {
        for own in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(own) else { continue };
            let mut address = listener.local_addr().unwrap();
            let program = format!("process {} (", std::process::id());
            assert!(of(address).starts_with(&program), "{}", of(address));
            if own.starts_with('0') {
                address.set_ip("127.0.0.1".parse().unwrap());
                assert!(of(address).starts_with(&program), "all addresses are this one, too");
            }
            drop(listener);
            assert_eq!(of(address), "another process", "no listener any more");
        }
    }

    /// Those of others could be many, and could hang.
    #[test]
    fn only_processes_of_the_user_are_looked_at() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stranger = rustix::fs::Uid::from_raw(64_999);
        if rustix::fs::fchown(&listener, Some(stranger), None).is_err() {
            return vm_metrics_testkit::skip::skip("the right to give sockets away");
        }
        assert_eq!(of(listener.local_addr().unwrap()), "a process of the user 64999");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_the_kernel_are_read() {
        let v4 = "   0: 0100007F:28E0 00000000:0000 0A 00000000:00000000 00:00000000 00000000   107        0 4711 1";
        let expected = Socket { address: "127.0.0.1:10464".parse().unwrap(), uid: 107, inode: 4711 };
        assert_eq!(listening(v4), Some(expected));
        let v6 = "0: 00000000000000000000000001000000:0050 0:0 0A 0:0 00:0 0 0 0 8 1";
        assert_eq!(listening(v6).unwrap().address, "[::1]:80".parse().unwrap());
        assert_eq!(listening(&v4.replace(" 0A ", " 01 ")), None, "a connection");
        for broken in [
            "",
            "sl local_address rem_address st",
            "0: 0100007F0:28E0 0:0 0A 0:0 00:0 0 0 0 8",
            "0: é:1 0 0A 0 0 0 0 0 8",
        ] {
            assert_eq!(listening(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_addresses_that_collide_overlap() {
        let overlap = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1") && overlap("127.0.0.1:1", "0.0.0.0:1"));
        assert!(overlap("[::]:1", "127.0.0.1:1") && overlap("[::ffff:127.0.0.1]:1", "127.0.0.1:1"));
        assert!(!overlap("127.0.0.1:2", "127.0.0.1:1") && !overlap("127.0.0.2:1", "127.0.0.1:1"));
        assert!(!overlap("0.0.0.0:1", "[::1]:1"));
    }
}
