//! A macvtap on a veth pair, which connects its holder to the other end.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use tempfile::TempDir;

use crate::link::{Link, ip};
use crate::sys;
use crate::wait::{SOON, wait_until};

/// It goes with the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Macvtap {
    link: Link,
    /// The other end of the underlying network.
    peer: Link,
    fd: OwnedFd,
    _node: TempDir,
}

impl Macvtap {
    /// `None` when this kernel has no macvtap.
    pub fn create_up(name: &str) -> Result<Option<Self>> {
        let (lower, peer) = (Link::named(format!("{name}l")), Link::named(format!("{name}p")));
        ip(&["link", "add", lower.name(), "type", "veth", "peer", "name", peer.name()])?;
        let macvtap =
            ["link", "add", "link", lower.name(), "name", name, "type", "macvtap", "mode", "bridge"];
        match ip(&macvtap) {
            Err(error) if format!("{error:#}").contains("Unknown device type") => return Ok(None),
            made => made?,
        }
        let link = Link::named(name);
        for link in [&lower, &peer, &link] {
            link.up()?;
        }
        // The kernel reports this a little later, and drops frames until then.
        wait_until(SOON, "the macvtap to be up", || Ok(is_up(&link)?.then_some(())))?;
        let ifindex = link.ifindex()?;
        // Not the node in /dev, because two namespaces whose macvtaps have the same index compete for it.
        let node = tempfile::tempdir().context("make a directory")?;
        let path = node.path().join(format!("tap{ifindex}"));
        make_node(name, ifindex, &path)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
        let mut request = sys::ifreq(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        sys::ioctl_ifreq(&fd, libc::TUNSETIFF, &mut request).context("TUNSETIFF")?;
        Ok(Some(Self { link, peer, fd, _node: node }))
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    pub fn peer(&self) -> &Link {
        &self.peer
    }

    /// Makes one more device node, which only root may open.
    pub fn make_node(&self, path: &Path) -> Result<()> {
        make_node(self.link.name(), self.link.ifindex()?, path)
    }

    /// Deletes the device; its descriptors become useless.
    pub fn delete(&self) -> Result<()> {
        ip(&["link", "delete", self.link.name()])
    }

    /// Sends a frame from the guest.
    pub fn write_frame(&self, frame: &[u8]) -> Result<()> {
        let written = rustix::io::write(&self.fd, frame).context("write a frame to a macvtap")?;
        ensure!(written == frame.len(), "only {written} bytes of a frame were written");
        Ok(())
    }
}

impl AsFd for Macvtap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn make_node(name: &str, ifindex: u32, path: &Path) -> Result<()> {
    let numbers = format!("/sys/class/net/{name}/macvtap/tap{ifindex}/dev");
    let numbers = fs::read_to_string(&numbers).with_context(|| format!("read {numbers}"))?;
    let (major, minor) = numbers.trim().split_once(':').context("no device number")?;
    let number = makedev(major.parse()?, minor.parse()?);
    mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, number).context("mknod")
}

fn is_up(link: &Link) -> Result<bool> {
    let path = format!("/sys/class/net/{}/operstate", link.name());
    Ok(fs::read_to_string(&path).with_context(|| format!("read {path}"))?.trim() == "up")
}
