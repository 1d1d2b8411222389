//! A real KVM VM with a guest of three bytes.
//!
//! The guest halts, loops, or never runs. The processor begins at the reset vector, so that no register needs a value.
//! The other vCPUs wait there for the first one.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys;

const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xae60;
const KVM_RUN: libc::c_ulong = 0xae80;

/// The last page below 4 GiB, at whose end an x86 processor begins.
const RESET_PAGE: u64 = 0xffff_f000;
const RESET_OFFSET: usize = 0xff0;

const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
const LOOP: &[u8] = &[0xeb, 0xfe];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guest {
    /// Waits for an interrupt that never comes.
    Halts,
    /// Takes a whole CPU.
    Loops,
    /// Has vCPUs that no thread runs.
    NeverRuns,
}

/// The VM ends with the process: its vCPU threads never end.
#[derive(Debug)]
pub struct KvmVm {
    _vm: OwnedFd,
    /// vCPUs that no thread runs.
    _vcpus: Vec<OwnedFd>,
}

/// Returns the reason for the absence of KVM; `None` where it works.
pub fn unavailable() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the guest is of x86 code".to_owned());
    }
    let device = open().and_then(|device| Ok(sys::ioctl_descriptor(&device, KVM_CREATE_VM, 0)?));
    device.err().map(|error| format!("no VM of KVM: {error:#}"))
}

impl KvmVm {
    pub fn start(vcpus: u32, guest: Guest) -> Result<Self> {
        let device = open()?;
        let vm = sys::ioctl_descriptor(&device, KVM_CREATE_VM, 0).context("KVM_CREATE_VM")?;
        sys::ioctl_value(&vm, KVM_CREATE_IRQCHIP, 0).context("KVM_CREATE_IRQCHIP")?;
        let code = if guest == Guest::Halts { HALT } else { LOOP };
        sys::give_kvm_page(&vm, RESET_PAGE, RESET_OFFSET, code).context("KVM_SET_USER_MEMORY_REGION")?;
        let mut idle = Vec::new();
        for vcpu in 0..vcpus {
            let vcpu = sys::ioctl_descriptor(&vm, KVM_CREATE_VCPU, vcpu.into()).context("KVM_CREATE_VCPU")?;
            if guest == Guest::NeverRuns {
                idle.push(vcpu);
                continue;
            }
            let run = move || while let Ok(()) | Err(libc::EINTR) = run(&vcpu) {};
            thread::Builder::new().name("guest".to_owned()).spawn(run).context("start a vCPU")?;
        }
        // It stays open, as in VMMs.
        std::mem::forget(device);
        Ok(Self { _vm: vm, _vcpus: idle })
    }
}

fn open() -> Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm").context("open /dev/kvm")?;
    Ok(device.into())
}

/// Runs until the guest needs this program.
fn run(vcpu: impl AsFd) -> Result<(), i32> {
    sys::ioctl_value(vcpu, KVM_RUN, 0).map_err(|error| error.raw_os_error().unwrap_or_default())
}

const SPEC: &str = "TESTKIT_KVM_VM";

/// The VM that a program with this environment variable holds, see [`hold_if_asked`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KvmSpec {
    pub vcpus: u32,
    pub guest: Guest,
}

impl KvmSpec {
    /// Returns the environment variable that asks for the VM.
    pub fn variable(self) -> Result<(&'static str, String)> {
        Ok((SPEC, serde_json::to_string(&self).context("write the spec of a VM of KVM")?))
    }
}

/// Starts the VM that the environment asks for.
pub fn hold_if_asked() -> Result<Option<KvmVm>> {
    let Ok(spec) = std::env::var(SPEC) else { return Ok(None) };
    let KvmSpec { vcpus, guest } = serde_json::from_str(&spec).with_context(|| format!("read {SPEC}"))?;
    if vcpus == 0 {
        bail!("a VM without vCPUs");
    }
    KvmVm::start(vcpus, guest).map(Some)
}
