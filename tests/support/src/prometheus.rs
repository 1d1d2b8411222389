//! The real Prometheus of Debian, with server and promtool.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::wait::wait_until;
use crate::{http, packages};

/// A start takes a second, and the first scrape follows about 6 s later.
const DEADLINE: Duration = Duration::from_secs(60);

/// A Debian release with a Prometheus 3.
const WITH_CREATED: &str = "forky";

/// Ingests created timestamps as counters of 0.
const CREATED: &str = "--enable-feature=created-timestamp-zero-ingestion";

/// The programs of the package.
#[derive(Clone, Debug)]
pub struct Prometheus {
    programs: PathBuf,
    options: &'static [&'static str],
}

/// Scrapes its targets every second; a drop kills it.
#[derive(Debug)]
pub struct PrometheusServer {
    // Drop order: the process must end before its directory goes.
    _process: ChildProcess,
    _directory: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    /// Uses the installed program, or unpacks the package: its installation would start a service. Needs the network,
    /// so call it before [`crate::netns::NetNs::enter`].
    pub fn prepare() -> Result<Self> {
        let installed = Path::new("/usr/bin");
        if installed.join("prometheus").is_file() && installed.join("promtool").is_file() {
            return Ok(Self { programs: installed.to_owned(), options: &[] });
        }
        Ok(Self { programs: packages::unpacked("prometheus")?.join("usr/bin"), options: &[] })
    }

    /// Unpacks a Prometheus 3 that ingests created timestamps.
    pub fn prepare_with_created_timestamps() -> Result<Self> {
        let package = packages::unpacked_of(WITH_CREATED, "prometheus")?;
        Ok(Self { programs: package.join("usr/bin"), options: &[CREATED] })
    }

    /// Returns the server's program.
    pub fn program(&self) -> PathBuf {
        self.programs.join("prometheus")
    }

    /// Starts a server in the calling thread's namespace, on a free port.
    pub fn start(&self, targets: &[impl Display]) -> Result<PrometheusServer> {
        let directory = tempfile::Builder::new().prefix("vm-metrics-prometheus-").tempdir();
        let directory = directory.context("make a directory for Prometheus")?;
        let config = directory.path().join("prometheus.yml");
        fs::write(&config, configuration(targets)).with_context(|| format!("write {}", config.display()))?;
        let mut command = Command::new(self.program());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg("--web.listen-address=127.0.0.1:0").args(self.options);
        let mut process = ChildProcess::spawn("Prometheus", &mut command)?;
        let address = process.wait_for_log(DEADLINE, "where it listens", listening_address)?;
        // Until then it responds to queries with 503.
        wait_until(DEADLINE, "Prometheus to be ready", || {
            process.check_running()?;
            let answer = http::get(address, "/-/ready", None)?;
            Ok((answer.status == 200).then_some(()))
        })?;
        Ok(PrometheusServer { _process: process, _directory: directory, address })
    }

    /// Runs `promtool check metrics` on the text of a scrape. It does not detect duplicate samples.
    pub fn check_metrics(&self, text: &str) -> Result<()> {
        let mut command = Command::new(self.programs.join("promtool"));
        command
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("run {command:?}"))?;
        // promtool reads all its input first. The input closes at the end of the statement.
        child.stdin.take().context("no input")?.write_all(text.as_bytes()).context("write to promtool")?;
        let output = child.wait_with_output().context("wait for promtool")?;
        let message = [output.stdout, output.stderr].concat();
        ensure!(
            output.status.success(),
            "promtool: {}\n{}",
            output.status,
            String::from_utf8_lossy(&message)
        );
        Ok(())
    }
}

impl PrometheusServer {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the `data.result` of an instant query: a list of series, each with `metric` and `value`.
    pub fn query(&self, promql: &str) -> Result<Vec<Value>> {
        self.query_in(Duration::ZERO, promql)
    }

    /// Like [`query`](Self::query), at this time after now, without further scrapes.
    pub fn query_in(&self, time: Duration, promql: &str) -> Result<Vec<Value>> {
        let at = SystemTime::UNIX_EPOCH.elapsed().context("the clock is before 1970")? + time;
        let path =
            format!("/api/v1/query?time={:.3}&query={}", at.as_secs_f64(), http::percent_encode(promql));
        let response = http::get(self.address, &path, None)?;
        let answer: Value =
            serde_json::from_slice(&response.body).with_context(|| format!("query {promql}"))?;
        let result = answer["data"]["result"].as_array();
        result.cloned().with_context(|| format!("query {promql}: {answer}"))
    }

    /// Repeats the query until it has a result, which any scrape may bring.
    pub fn wait_for(&self, promql: &str) -> Result<Vec<Value>> {
        let what = format!("Prometheus to have {promql}");
        wait_until(DEADLINE, &what, || {
            let found = self.query(promql)?;
            Ok((!found.is_empty()).then_some(found))
        })
    }
}

fn configuration(targets: &[impl Display]) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    let targets = targets.join(", ");
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: vm-metrics\n    \
         static_configs:\n      - targets: [{targets}]\n"
    )
}

/// Returns the address in the log. The line before has the requested port 0, and Prometheus 3 names its component
/// between the two.
fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, line) = log.split_once("msg=\"Listening on\"")?;
    let (_, after) = line.split_once("address=")?;
    let (address, _) = after.split_once(|c: char| c.is_whitespace())?;
    address.parse().ok()
}
