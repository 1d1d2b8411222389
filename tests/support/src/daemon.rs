//! The built daemon as a process of its own, asked over HTTP like by anybody else.

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

/// `vm-metrics serve`, listening; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: ChildProcess,
    address: SocketAddr,
}

impl Daemon {
    /// Runs `binary serve --listen 127.0.0.1:0 args…` and waits until it has numbers to tell.
    pub fn start(binary: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
        let daemon = Self::start_command(command)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Runs a command that in the end is a daemon with `--listen 127.0.0.1:0`, for example through `setpriv`.
    pub fn start_command(mut command: Command) -> Result<Self> {
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

    /// All that the daemon has said so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The answer to `GET path`, whatever its status is.
    pub fn get(&self, path: &str, accept: Option<&str>) -> Result<Response> {
        http::get(self.address, path, accept)
    }

    /// The answer to a request without a body.
    pub fn request(&self, method: &str, path: &str) -> Result<Response> {
        http::request(self.address, method, path, None)
    }

    /// The text of `GET /metrics`.
    pub fn scrape(&self) -> Result<String> {
        let response = self.get("/metrics", None)?;
        ensure!(response.status == 200, "GET /metrics: {}: {}", response.status, response.text()?);
        Ok(response.text()?.to_owned())
    }

    /// The values of `GET /metrics`, of which none is given twice.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.scrape()?)
    }

    /// Scrapes until the metrics are as wanted.
    pub fn wait_for<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut find: impl FnMut(&Metrics) -> Option<T>,
    ) -> Result<T> {
        wait_until(deadline, what, || Ok(find(&self.metrics()?)))
    }

    /// SIGTERM, and the exit status that follows.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(SOON)
    }

    /// SIGKILL: nothing is drained, nothing is cleaned up.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }
}

/// The first TCP address of the line, when all of it is there.
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
