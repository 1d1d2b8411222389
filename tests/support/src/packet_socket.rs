//! The host's side of a TAP, whose frames pass qdisc and tc egress.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};

use crate::link::Link;
use crate::sys;

/// A packet socket for sending only; it gets no copies of other frames.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    device: String,
}

impl PacketSocket {
    pub fn bind(device: &str) -> Result<Self> {
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .context("socket AF_PACKET")?;
        let ifindex = Link::named(device).ifindex()?;
        sys::bind_packet_socket(&fd, ifindex).with_context(|| format!("bind a packet socket to {device}"))?;
        Ok(Self { fd, device: device.to_owned() })
    }

    /// Like [`Self::bind`], for frames with a virtio-net header, so that the host offers GSO frames.
    pub fn bind_with_vnet_header(device: &str) -> Result<Self> {
        let socket = Self::bind(device)?;
        sys::expect_vnet_header(&socket.fd).with_context(|| format!("PACKET_VNET_HDR for {device}"))?;
        Ok(socket)
    }

    /// Offers a frame to the guest, who gets it by a read from the TAP.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(&self.fd, frame, SendFlags::empty())
            .with_context(|| format!("send a frame of {} bytes to {}", frame.len(), self.device))?;
        ensure!(sent == frame.len(), "only {sent} of {} bytes were sent to {}", frame.len(), self.device);
        Ok(())
    }
}
