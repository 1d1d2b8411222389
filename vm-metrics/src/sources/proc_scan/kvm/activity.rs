//! Finds whether a vCPU of a process has run, unlike in a probe of KVM.
//!
//! A process that was forked holds the descriptors of its parent's VM, and may not run that.

use std::fs;

use crate::procfs::parse_guest_ticks;
use crate::sources::process::{ProcessDir, ReadError, read};

/// `KVM_RUN` of <linux/kvm.h>
const KVM_RUN: u64 = 0xae80;

/// More threads than a VM's process has as a rule. A vCPU's is among the first.
const MAX_THREADS: usize = 1024;

const STAT_LIMIT: u64 = 4 << 10;
const SYSCALL_LIMIT: u64 = 512;

/// The order is that of certainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// No thread is in a vCPU.
    Idle,
    /// A thread is on a CPU, or its state is unknown: it may be in a vCPU.
    Unknown,
    /// A vCPU has run or waits for an interrupt.
    Ran,
}

/// The kernel counts the time of guests, where it is built for that. Else a thread that is in `KVM_RUN` is a vCPU.
pub fn activity(process: &ProcessDir) -> Result<Activity, ReadError> {
    let stat = read(&process.path("stat"), STAT_LIMIT)?;
    if parse_guest_ticks(&stat).is_ok_and(|ticks| ticks > 0) {
        return Ok(Activity::Ran);
    }
    let Ok(threads) = fs::read_dir(process.path("task")) else { return Ok(Activity::Unknown) };
    let mut found = Activity::Idle;
    for thread in threads.flatten().take(MAX_THREADS) {
        found = found.max(match read(&thread.path().join("syscall"), SYSCALL_LIMIT) {
            Ok(call) => of_call(&call),
            Err(ReadError::Gone) => Activity::Idle,
            Err(ReadError::Failed(_)) => Activity::Unknown,
        });
        if found == Activity::Ran {
            break;
        }
    }
    Ok(found)
}

/// `running`, or the number of the call and its arguments.
fn of_call(call: &[u8]) -> Activity {
    let call = String::from_utf8_lossy(call);
    let mut words = call.split_whitespace();
    let Some(number) = words.next().filter(|first| *first != "running") else { return Activity::Unknown };
    let request = words.nth(1).and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let is_ioctl = number.parse() == Ok(libc::SYS_ioctl);
    if is_ioctl && request == Some(KVM_RUN) { Activity::Ran } else { Activity::Idle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_in_kvm_run_is_a_vcpu() {
        let ioctl = libc::SYS_ioctl;
        for (call, expected) in [
            (format!("{ioctl} 0x5 0xae80 0x0 0x7f57 0x5 0x0 0x7ffe 0x7f57\n"), Activity::Ran),
            (format!("{ioctl} 0x5 0xae81 0x0 0x7f57 0x5 0x0 0x7ffe 0x7f57\n"), Activity::Idle),
            ("9999 0x5 0xae80 0x0\n".to_owned(), Activity::Idle),
            ("running\n".to_owned(), Activity::Unknown),
            ("-1 0x7ffe 0x7f57\n".to_owned(), Activity::Idle),
            (String::new(), Activity::Unknown),
        ] {
            assert_eq!(of_call(call.as_bytes()), expected, "{call}");
        }
    }
}
