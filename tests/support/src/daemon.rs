//! The built daemon as a child process with HTTP requests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::child::ChildProcess;
use crate::http::{self, Response};
use crate::metrics_text::Metrics;
use crate::wait::{SOON, wait_until};

/// The variables with the groups of series of `/metrics` and of the push.
pub const GROUPS: [&str; 2] =
    ["VM_METRICS_EXPORTERS__PROMETHEUS__GROUPS", "VM_METRICS_EXPORTERS__OTLP__GROUPS"];

/// `vm-metrics serve` with a listening socket; a drop kills it.
#[derive(Debug)]
pub struct Daemon {
    process: ChildProcess,
    address: SocketAddr,
}

impl Daemon {
    /// Runs `binary serve --listen 127.0.0.1:0 args…` and waits for the first numbers.
    pub fn start(binary: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
        let daemon = Self::start_command(command)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Runs a command that becomes a daemon with `--listen 127.0.0.1:0`, for example through `setpriv`. It shows all groups
    /// of series, unless the command has [`GROUPS`].
    pub fn start_command(mut command: Command) -> Result<Self> {
        for name in GROUPS {
            if command.get_envs().all(|(set, _)| set != name) {
                command.env(name, "[\"all\"]");
            }
        }
        let mut process = ChildProcess::spawn("vm-metrics", &mut command)?;
        let address = process.wait_for_log(SOON, "where it listens", listening_address)?;
        Ok(Self { process, address })
    }

    pub fn wait_until_ready(&self) -> Result<()> {
        wait_until(SOON, "the first tick", || Ok((self.get("/-/ready", None)?.status == 200).then_some(())))
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns the response to `GET path` with any status.
    pub fn get(&self, path: &str, accept: Option<&str>) -> Result<Response> {
        http::get(self.address, path, accept)
    }

    /// Returns the response to a request without a body.
    pub fn request(&self, method: &str, path: &str) -> Result<Response> {
        http::request(self.address, method, path, None)
    }

    /// Returns the text of `GET /metrics`.
    pub fn scrape(&self) -> Result<String> {
        let response = self.get("/metrics", None)?;
        ensure!(response.status == 200, "GET /metrics: {}: {}", response.status, response.text()?);
        Ok(response.text()?.to_owned())
    }

    /// Returns the values of `GET /metrics`, and refuses duplicate samples.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.scrape()?)
    }

    /// Scrapes until the metrics satisfy a condition.
    pub fn wait_for<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut find: impl FnMut(&Metrics) -> Option<T>,
    ) -> Result<T> {
        wait_until(deadline, what, || Ok(find(&self.metrics()?)))
    }

    /// Waits until eBPF counts the only TAP.
    pub fn wait_for_ebpf(&self) -> Result<()> {
        let by_ebpf = |metrics: &Metrics| metrics.value("vm_network_source_info", &[("source", "ebpf")]);
        self.wait_for(SOON, "the programs on the TAP", by_ebpf).map(drop)
    }

    /// Waits for the VM of this process and returns its id.
    pub fn id_of(&self, pid: u32) -> Result<String> {
        let pid = pid.to_string();
        let find = |metrics: &Metrics| {
            let mut infos = metrics.samples("vm_info");
            infos.find(|info| info.label("pid") == Some(&pid))?.label("instance_id").map(str::to_owned)
        };
        self.wait_for(SOON, &format!("process {pid} as a VM"), find)
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(SOON)
    }

    /// Sends SIGKILL, which leaves no time for a cleanup.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }
}

/// Returns the first TCP address of the line, once the line is complete.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once("listening on ")?;
    let (addresses, _) = after.split_once('\n')?;
    let mut words = addresses.split([' ', ',', '/']);
    words.find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_line_has_no_address() {
        assert_eq!(listening_address("INFO listening on http://127.0.0.1:94"), None, "the rest may follow");
        for line in ["http://127.0.0.1:10464", "http://127.0.0.1:10464, http://[::1]:7, a tick every 1s"] {
            let address = listening_address(&format!("INFO x: listening on {line}\nmore")).unwrap();
            assert_eq!(address, "127.0.0.1:10464".parse().unwrap());
        }
        let address = listening_address("listening on unix:/x.sock, http://[::1]:7/metrics\n");
        assert_eq!(address, Some("[::1]:7".parse().unwrap()));
    }
}
