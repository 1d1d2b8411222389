//! Configures a network device by ioctl, and reads its counters from sysfs.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::sys;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    name: String,
}

/// The device's own counters from the host's side: `rx` is the guest's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
}

impl Link {
    /// Names a device that need not exist yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the namespace has such a device. Asks the kernel, independent of the mount on `/sys`.
    pub fn exists(&self) -> bool {
        self.ifindex().is_ok()
    }

    pub fn ifindex(&self) -> Result<u32> {
        let socket = control_socket()?;
        netdevice::name_to_index(&socket, &self.name).with_context(|| format!("SIOCGIFINDEX {}", self.name))
    }

    pub fn up(&self) -> Result<()> {
        self.change_flags(|flags| flags | libc::IFF_UP as i16)
    }

    pub fn down(&self) -> Result<()> {
        self.change_flags(|flags| flags & !(libc::IFF_UP as i16))
    }

    /// Renames the device, which must be down.
    pub fn rename(&mut self, name: &str) -> Result<()> {
        let new = sys::ifreq(name)?.ifr_name;
        self.request(libc::SIOCSIFNAME, "SIOCSIFNAME", |r| r.ifr_ifru.ifru_newname = new)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        self.request(libc::SIOCSIFMTU, "SIOCSIFMTU", |r| r.ifr_ifru.ifru_mtu = mtu.into())?;
        Ok(())
    }

    /// Sets the device's only IPv4 address.
    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let mask = sys::socket_address(Ipv4Addr::from(mask));
        let address = sys::socket_address(address);
        self.request(libc::SIOCSIFADDR, "SIOCSIFADDR", |r| r.ifr_ifru.ifru_addr = address)?;
        self.request(libc::SIOCSIFNETMASK, "SIOCSIFNETMASK", |r| r.ifr_ifru.ifru_netmask = mask)?;
        Ok(())
    }

    pub fn hardware_address(&self) -> Result<[u8; 6]> {
        let answer = self.request(libc::SIOCGIFHWADDR, "SIOCGIFHWADDR", |_| ())?;
        Ok(sys::hardware_address(&answer))
    }

    /// Stops the host from sending router solicitations and the like on this device. Call it before [`Self::up`].
    pub fn disable_ipv6(&self) -> Result<()> {
        let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name));
        match fs::write(&path, "1") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("write {}", path.display()))
            }
            // A kernel without IPv6 lacks this file.
            _ => Ok(()),
        }
    }

    /// Reads `/sys/class/net/<name>/statistics`.
    pub fn counters(&self) -> Result<LinkCounters> {
        Ok(LinkCounters {
            rx_packets: self.counter("rx_packets")?,
            rx_bytes: self.counter("rx_bytes")?,
            rx_dropped: self.counter("rx_dropped")?,
            tx_packets: self.counter("tx_packets")?,
            tx_bytes: self.counter("tx_bytes")?,
            tx_dropped: self.counter("tx_dropped")?,
        })
    }

    fn counter(&self, counter: &str) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/{counter}", self.name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        text.trim().parse().with_context(|| format!("{path} has {text:?}"))
    }

    fn change_flags(&self, change: impl FnOnce(i16) -> i16) -> Result<()> {
        let now = sys::flags(&self.request(libc::SIOCGIFFLAGS, "SIOCGIFFLAGS", |_| ())?);
        self.request(libc::SIOCSIFFLAGS, "SIOCSIFFLAGS", |r| r.ifr_ifru.ifru_flags = change(now))?;
        Ok(())
    }

    fn request(
        &self,
        code: libc::c_ulong,
        operation: &str,
        fill: impl FnOnce(&mut libc::ifreq),
    ) -> Result<libc::ifreq> {
        let mut request = sys::ifreq(&self.name)?;
        fill(&mut request);
        sys::ioctl_ifreq(control_socket()?, code, &mut request)
            .with_context(|| format!("{operation} {}", self.name))?;
        Ok(request)
    }
}

/// Makes a socket for device requests in the namespace of the calling thread.
fn control_socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).context("socket AF_INET")
}

/// Runs `ip` of iproute2 for rare requests.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
