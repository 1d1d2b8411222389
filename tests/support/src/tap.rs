//! A TAP device that this process holds like a VMM.
//!
//! A write to it sends from the guest.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::frames::Frame;
use crate::link::Link;
use crate::sys;
use crate::wait::{SOON, wait_until};

#[derive(Clone, Copy, Debug, Default)]
pub struct TapOptions {
    /// Every frame begins with a virtio-net header, and may be a GSO frame.
    pub vnet_hdr: bool,
    /// The guest takes GSO frames whole (TSO for IPv4 and IPv6); otherwise the kernel segments them. Needs `vnet_hdr`.
    pub offload: bool,
    /// Allows several descriptors on the device: see [`Tap::open_queue`].
    pub multi_queue: bool,
    /// The device outlives its descriptors, until the [`Tap`] drops in the same process.
    pub persist: bool,
    /// The index of the device; 0 lets the kernel choose.
    pub ifindex: u32,
}

/// The device goes when this and all its other queues drop.
#[derive(Debug)]
pub struct Tap {
    link: Link,
    ifindex: u32,
    options: TapOptions,
    queue: Queue,
}

/// One file descriptor on a TAP.
#[derive(Debug)]
pub struct Queue {
    fd: OwnedFd,
    name: String,
}

impl Tap {
    /// Creates the device in the calling thread's network namespace, down and without an address.
    pub fn create(name: &str, options: TapOptions) -> Result<Self> {
        let queue = Queue::open(name, options)?;
        if options.persist {
            sys::ioctl_value(&queue, libc::TUNSETPERSIST, 1)
                .with_context(|| format!("TUNSETPERSIST {name}"))?;
        }
        let link = Link::named(name);
        let ifindex = link.ifindex()?;
        let tap = Self { link, ifindex, options, queue };
        if options.offload {
            tap.set_offload(true)?;
        }
        Ok(tap)
    }

    /// See [`TapOptions::offload`]; a guest may change its mind at any time.
    pub fn set_offload(&self, on: bool) -> Result<()> {
        let offload = if on { libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 } else { 0 };
        sys::ioctl_value(&self.queue, libc::TUNSETOFFLOAD, offload.into())
            .with_context(|| format!("TUNSETOFFLOAD {}", self.name()))
    }

    /// Creates the device and brings it up without the host's IPv6.
    pub fn create_up(name: &str, options: TapOptions) -> Result<Self> {
        let tap = Self::create(name, options)?;
        tap.link.disable_ipv6()?;
        tap.link.up()?;
        Ok(tap)
    }

    /// Makes the device refuse guest frames to any other address.
    pub fn take_only(&self, address: [u8; 6]) -> Result<()> {
        sys::set_tun_address_filter(&self.queue, address)
            .with_context(|| format!("TUNSETTXFILTER {}", self.name()))
    }

    /// Makes the device refuse all guest frames by a socket filter.
    pub fn refuse_all(&self) -> Result<()> {
        sys::refuse_all_on_tun(&self.queue).with_context(|| format!("TUNATTACHFILTER {}", self.name()))
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    pub fn name(&self) -> &str {
        self.link.name()
    }

    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Releases a persistent device for its next creator.
    pub fn leave(mut self) {
        self.options.persist = false;
    }

    /// Opens one more descriptor on a multi-queue device.
    pub fn open_queue(&self) -> Result<Queue> {
        Queue::open(self.name(), self.options)
    }

    /// Sends so many equal UDP frames from the guest, and returns their bytes.
    pub fn send_udp4(&self, frames: u64, payload: usize) -> Result<u64> {
        let frame = Frame::from_guest().udp4(payload);
        (0..frames).try_for_each(|_| self.write_frame(&frame))?;
        Ok(frames * frame.len() as u64)
    }

    /// See [`Queue::write_frame`].
    pub fn write_frame(&self, frame: &[u8]) -> Result<()> {
        self.queue.write_frame(frame)
    }

    /// See [`Queue::read_frame`].
    pub fn read_frame(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.queue.read_frame(buffer)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.options.persist {
            // Fails if the device was deleted: then nothing is left to do.
            let _ = sys::ioctl_value(&self.queue, libc::TUNSETPERSIST, 0);
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Queue {
    fn open(name: &str, options: TapOptions) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty()).context("open /dev/net/tun")?;
        if options.ifindex != 0 {
            sys::ioctl_u32(&fd, libc::TUNSETIFINDEX, options.ifindex)
                .with_context(|| format!("TUNSETIFINDEX {}", options.ifindex))?;
        }
        let mut request = sys::ifreq(name)?;
        request.ifr_ifru.ifru_flags = options.flags();
        // A child process of another test holds this one's descriptors until its exec.
        wait_until(SOON, &format!("TUNSETIFF {name}"), || {
            match sys::ioctl_ifreq(&fd, libc::TUNSETIFF, &mut request) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(error).with_context(|| format!("TUNSETIFF {name}")),
            }
        })?;
        Ok(Self { fd, name: name.to_owned() })
    }

    /// Sends a frame from the guest. On return it is at the host, and the device counted it as rx.
    pub fn write_frame(&self, frame: &[u8]) -> Result<()> {
        let done = rustix::io::write(&self.fd, frame).map_err(io::Error::from);
        done.with_context(|| format!("write a frame of {} bytes to {}", frame.len(), self.name))?;
        Ok(())
    }

    /// Reads a frame as the guest, if one waits. Only now the device counts it as tx.
    pub fn read_frame(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read a frame from {}", self.name)),
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TapOptions {
    fn flags(self) -> i16 {
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if self.vnet_hdr {
            flags |= libc::IFF_VNET_HDR;
        }
        if self.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        flags as i16
    }
}
