//! The machine of a run, with its kernel and its other work.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Threads that ran or waited for a CPU in the last minute before the run: other work makes ticks late.
    pub load: f64,
}

impl Machine {
    pub fn this() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let cores = thread::available_parallelism().context("count the CPUs")?.get();
        let load = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let load = load.split(' ').next().and_then(|load| load.parse().ok()).context("/proc/loadavg")?;
        Ok(Self { load, cpu: model(&cpus).unwrap_or("unknown CPU").to_owned(), cores, kernel })
    }
}

/// Returns the first model name; not every architecture has one.
fn model(cpus: &str) -> Option<&str> {
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_optional() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A B @ 2 GHz\n"), Some("A B @ 2 GHz"));
        assert_eq!(model("processor\t: 0\nBogoMIPS\t: 50\n"), None);
    }
}
