//! A real guest: Linux in QEMU without KVM, with a shell.
//!
//! QEMU makes TAPs for virtio-net in the network namespace of the calling thread. The guest's IPv6 is off, and so is
//! the host's in a [`crate::netns::NetNs`], so each frame is one of the test.

mod contents;
mod control;
mod image;
mod kernel;
mod modules;
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

pub use self::contents::Contents;
use self::control::Control;
pub use self::image::GuestImage;
pub use self::kernel::Kernel;
pub use self::traffic::LinkCounts;
use crate::child::ChildProcess;
use crate::link::Link;
use crate::wait::wait_until;

/// A guest boots in 2 to 4 s on a quiet machine.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// Time limit of a command of [`Guest::run`].
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct GuestConfig {
    pub name: String,
    pub uuid: String,
    pub vcpus: u32,
    pub memory_mib: u32,
    pub nics: Vec<GuestNic>,
    /// The value of QEMU's `-accel`.
    pub accel: &'static str,
    /// The last arguments of QEMU, for example `-qmp unix:…`.
    pub extra_args: Vec<String>,
}

/// A network interface; the first is `eth0` in the guest. Both addresses are in one /24.
#[derive(Clone, Debug)]
pub struct GuestNic {
    pub tap: String,
    pub host: Ipv4Addr,
    pub guest: Ipv4Addr,
    pub queues: u32,
}

/// A running guest. A drop kills it and removes its TAPs.
#[derive(Debug)]
pub struct Guest {
    // Drop order: the process must end before its directory goes.
    qemu: ChildProcess,
    control: Control,
    directory: TempDir,
    config: GuestConfig,
}

impl GuestConfig {
    pub fn new(name: &str, nics: Vec<GuestNic>) -> Result<Self> {
        let path = "/proc/sys/kernel/random/uuid";
        let uuid = fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned();
        let (name, extra_args) = (name.to_owned(), Vec::new());
        Ok(Self { name, uuid, vcpus: 1, memory_mib: 128, nics, accel: "tcg", extra_args })
    }
}

impl GuestNic {
    pub fn new(tap: &str, host: impl Into<Ipv4Addr>, guest: impl Into<Ipv4Addr>) -> Self {
        Self { tap: tap.to_owned(), host: host.into(), guest: guest.into(), queues: 1 }
    }
}

impl GuestImage {
    /// Starts a guest. Returns when its shell responds and both ends of its interfaces have addresses.
    pub fn boot(&self, config: GuestConfig) -> Result<Guest> {
        let directory = tempfile::Builder::new().prefix("vm-metrics-guest-").tempdir();
        let directory = directory.context("make a directory for the guest")?;
        let socket = directory.path().join("control");
        let mut command = self.qemu(&config, &directory);
        let mut qemu = ChildProcess::spawn("QEMU", &mut command)?;
        let control = Control::connect(&socket, &mut qemu)?;
        let mut guest = Guest { qemu, control, directory, config };
        match guest.come_up() {
            Ok(()) => Ok(guest),
            Err(error) => bail!("guest {}: {error:#}\n{}", guest.config.name, guest.logs()),
        }
    }

    fn qemu(&self, config: &GuestConfig, directory: &TempDir) -> Command {
        let file = |name: &str| directory.path().join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-name", &format!("guest={}", config.name), "-uuid", &config.uuid]);
        qemu.args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-bios", "qboot.rom"]);
        qemu.args(["-accel", config.accel, "-cpu", "max"]);
        qemu.args(["-m", &config.memory_mib.to_string(), "-smp", &config.vcpus.to_string()]);
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        // Under TCG the kernel's clock checks fail on a busy machine. IPv6 would send frames by itself.
        let arguments = "console=ttyS0 quiet tsc=reliable no_timer_check panic=-1 ipv6.disable=1";
        qemu.args(["-append", arguments, "-no-reboot", "-pidfile", &file("pid")]);
        qemu.args(["-serial", &format!("file:{}", file("serial.log"))]);
        // With wait=on the guest starts after the connection, so that no output is lost.
        qemu.args(["-chardev", &format!("socket,id=control,path={},server=on,wait=on", file("control"))]);
        qemu.args(["-serial", "chardev:control"]);
        for (index, nic) in config.nics.iter().enumerate() {
            let GuestNic { tap, queues, .. } = nic;
            let netdev = format!("tap,id=net{index},ifname={tap},script=no,downscript=no,queues={queues}");
            let several =
                if *queues > 1 { format!(",mq=on,vectors={}", 2 * queues + 2) } else { String::new() };
            qemu.args(["-netdev", &netdev]);
            // No guest boots from the network, and QEMU only recommends the package of the boot ROM.
            qemu.args(["-device", &format!("virtio-net-pci,netdev=net{index},romfile={several}")]);
        }
        qemu.args(&config.extra_args);
        qemu
    }
}

impl Guest {
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    pub fn config(&self) -> &GuestConfig {
        &self.config
    }

    /// Returns the path of QEMU's pidfile.
    pub fn pidfile(&self) -> PathBuf {
        self.directory.path().join("pid")
    }

    /// Returns the host's side of an interface.
    pub fn link(&self, nic: usize) -> Link {
        Link::named(&self.config.nics[nic].tap)
    }

    /// Runs a shell line in the guest and returns both outputs. Fails on any exit status but 0.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(COMMAND_DEADLINE, command)
    }

    /// [`Self::run`] with a longer time limit.
    pub fn run_within(&mut self, deadline: Duration, command: &str) -> Result<String> {
        self.start(command)?;
        self.finish(deadline, command)
    }

    /// Returns exit status and output of a shell line. After an error the guest's state is unknown.
    pub fn status_of(&mut self, deadline: Duration, command: &str) -> Result<(i32, String)> {
        self.start(command)?;
        self.control.receive(deadline)
    }

    /// Returns the last lines of the kernel's console.
    pub fn console_tail(&self, lines: usize) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().rev().take(lines).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Returns the guest's own counters by interface.
    pub fn net_dev(&mut self) -> Result<BTreeMap<String, LinkCounts>> {
        traffic::parse_net_dev(&self.run("cat /proc/net/dev")?)
    }

    fn start(&mut self, command: &str) -> Result<()> {
        self.control.send(command)
    }

    fn finish(&mut self, deadline: Duration, command: &str) -> Result<String> {
        let (status, text) = match self.control.receive(deadline) {
            Ok(answer) => answer,
            Err(error) => bail!("in the guest: {command}: {error:#}\n{}", self.logs()),
        };
        ensure!(status == 0, "in the guest: {command}: exit status {status}\n{text}");
        Ok(text)
    }

    fn come_up(&mut self) -> Result<()> {
        self.control.wait_for_ready(BOOT_DEADLINE)?;
        for index in 0..self.config.nics.len() {
            let nic = self.config.nics[index].clone();
            let link = self.link(index);
            let there = || Ok(link.exists().then_some(()));
            wait_until(BOOT_DEADLINE, &format!("QEMU to make {}", nic.tap), there)?;
            link.disable_ipv6()?;
            link.set_address(nic.host, 24)?;
            link.up()?;
            self.run(&format!("ip addr add {}/24 dev eth{index} && ip link set eth{index} up", nic.guest))?;
        }
        Ok(())
    }

    fn logs(&self) -> String {
        format!("QEMU's log:\n{}\n{}", self.qemu.log(), self.console())
    }

    fn console(&self) -> String {
        let serial = fs::read(self.directory.path().join("serial.log")).unwrap_or_default();
        format!("the guest's console:\n{}", String::from_utf8_lossy(&serial))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // QEMU's own log follows at the end of its process.
        if thread::panicking() {
            eprintln!("{}", self.console());
        }
    }
}
