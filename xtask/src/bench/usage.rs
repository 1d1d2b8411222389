//! The memory and the open files of a daemon.

use std::fs;

use anyhow::{Context, Result};

use super::{contestant::Contestant, figures::Figures};

const KIB_PER_MIB: f64 = 1024.0;

pub fn measure(figures: &mut Figures, daemon: &Contestant, vms: u32) -> Result<()> {
    figures.add("memory.resident_mib", resident_mib(daemon.pid())?);
    figures.add("memory.peak_mib", memory(daemon.pid(), "VmHWM:")? / KIB_PER_MIB);
    let path = format!("/proc/{}/fd", daemon.pid());
    let files = fs::read_dir(&path).with_context(|| format!("list {path}"))?.count() as f64;
    figures.add("open_files", files);
    figures.add("open_files_per_vm", files / f64::from(vms));
    Ok(())
}

pub fn resident_mib(pid: u32) -> Result<f64> {
    Ok(memory(pid, "VmRSS:")? / KIB_PER_MIB)
}

/// Returns KiB.
fn memory(pid: u32, line: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let value =
        status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    value.with_context(|| format!("{path} without {line}"))
}
