//! The key `listen` and the flag `--listen`: the addresses of the HTTP server.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::ConfigError;

pub(super) const DEFAULT: &str = "127.0.0.1:10464";

/// Of the default address.
const DEFAULT_PORT: u16 = 10464;

/// A socket's path has at most 107 bytes, and its temporary name is five bytes longer.
const MAX_PATH: usize = 102;

/// A name that needs no resolver.
const LOCALHOST: &str = "localhost";

const EXAMPLE: &str = "such as 127.0.0.1:10464, localhost:10464, [::1]:10464, :10464 for all addresses of this host, \
                       or unix:/run/vm-metrics/metrics.sock";

/// The addresses of the server, with the place of their key or flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    addresses: Vec<ListenAddress>,
    /// For errors: the flag, or the file with the line and the key.
    place: String,
}

/// One address, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// All addresses of this host, IPv4 and IPv6.
    All(u16),
    Ip(SocketAddr),
    /// All addresses of a name.
    Name(String, u16),
    Unix(PathBuf),
}

impl Listen {
    pub(crate) fn new(addresses: Vec<ListenAddress>, place: impl Into<String>) -> Self {
        Self { addresses, place: place.into() }
    }

    pub(crate) fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The first port, which distinguishes daemons of one host.
    pub(crate) fn port(&self) -> u16 {
        self.addresses.iter().find_map(ListenAddress::port).unwrap_or(DEFAULT_PORT)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        f.write_str(&addresses.join(", "))
    }
}

impl ListenAddress {
    /// The addresses of TCP; none for a Unix socket.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let both = |v4: Ipv4Addr, v6: Ipv6Addr, port| vec![(v4, port).into(), (v6, port).into()];
        Ok(match self {
            Self::Ip(address) => vec![*address],
            Self::All(port) => both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, *port),
            Self::Name(name, port) if name == LOCALHOST => {
                both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, *port)
            }
            Self::Name(name, port) => (name.as_str(), *port).to_socket_addrs()?.collect(),
            Self::Unix(_) => Vec::new(),
        })
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::All(port) | Self::Name(_, port) => Some(*port),
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    fn unix(path: &str) -> Result<Self, String> {
        let path = Path::new(path);
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(format!("after unix: must be the absolute path of a socket, {EXAMPLE}"));
        }
        if path.as_os_str().len() > MAX_PATH {
            return Err(format!("the path of a socket has at most {MAX_PATH} bytes"));
        }
        Ok(Self::Unix(path.to_owned()))
    }

    fn of_host(host: &str, port: &str) -> Result<Self, String> {
        if host.starts_with('[') && port.ends_with(']') {
            return Err(format!("the port is missing, {EXAMPLE}"));
        }
        let port = port.parse().map_err(|_| format!("the port must be a number up to 65535, {EXAMPLE}"))?;
        if host.is_empty() {
            return Ok(Self::All(port));
        }
        if host.contains(':') {
            return Err(format!("an IPv6 address is written in brackets, {EXAMPLE}"));
        }
        if !is_name(host) {
            return Err(format!("no address and no name stands before the port, {EXAMPLE}"));
        }
        Ok(Self::Name(host.to_ascii_lowercase(), port))
    }
}

/// Whether a resolver could know the name. A name that ends with a number is a mistyped address.
fn is_name(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    text.chars().all(of_name) && !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) {
            return Err(format!("the port is missing, {EXAMPLE}"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return Err("a port needs an address: write \":10464\" for all of this host, or \
                        \"127.0.0.1:10464\""
                .to_owned());
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(format!("an IPv6 address is written in brackets, {EXAMPLE}"));
        }
        match text.rsplit_once(':') {
            _ if text.contains('/') => Err(format!(
                "an address has no scheme and no path, and a socket begins with unix:, {EXAMPLE}"
            )),
            Some((host, port)) => Self::of_host(host, port),
            None => Err(format!("the port is missing, {EXAMPLE}")),
        }
    }
}

/// As in the configuration.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(port) => write!(f, ":{port}"),
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As typed: one address, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an address, or an array of them, such as \"127.0.0.1:10464\"")]
pub(super) enum RawListen {
    /// One address, or several with commas, like the flag.
    One(String),
    Several(Vec<String>),
    /// A port without quotes, which gets the error of its text.
    Port(i64),
}

impl Default for RawListen {
    fn default() -> Self {
        Self::One(DEFAULT.to_owned())
    }
}

impl RawListen {
    /// `refuse` makes an error from a problem; `place` is the place of the key.
    pub(super) fn resolve(
        self,
        place: &str,
        refuse: impl Fn(String) -> ConfigError,
    ) -> Result<Listen, ConfigError> {
        let texts = match self {
            Self::One(text) => text.split(',').map(|text| text.trim().to_owned()).collect(),
            Self::Several(texts) => texts,
            Self::Port(port) => vec![port.to_string()],
        };
        let parse = |text: &String| {
            text.parse::<ListenAddress>().map_err(|problem| refuse(format!("listen: {text:?}: {problem}")))
        };
        if texts.is_empty() {
            return Err(refuse(format!("listen: no address is given, {EXAMPLE}")));
        }
        let (mut addresses, mut errors) = (Vec::new(), Vec::new());
        for text in &texts {
            parse(text).map_or_else(|error| errors.push(error), |address| addresses.push(address));
        }
        if errors.is_empty() { Ok(Listen::new(addresses, place)) } else { Err(ConfigError::all(errors)) }
    }
}

#[cfg(test)]
mod tests;
