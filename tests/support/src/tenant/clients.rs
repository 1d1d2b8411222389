//! HTTP clients of a tenant.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

use crate::http;

pub(super) fn get(address: SocketAddr, path: &str) -> Result<u64> {
    Ok(u64::from(http::get(address, path, None)?.status))
}

pub(super) fn connect(address: SocketAddr, text: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    // A server that refuses it may have closed it already.
    let _ = stream.write_all(text.as_bytes());
    Ok(stream)
}

/// Closes with a reset, so that the port is free at once.
pub(super) fn reset(stream: TcpStream) -> Result<()> {
    set_socket_linger(&stream, Some(Duration::ZERO)).context("set SO_LINGER")
}
