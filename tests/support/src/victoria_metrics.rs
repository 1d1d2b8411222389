//! The real VictoriaMetrics of Debian, which receives OTLP pushes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::{http, packages};

const START: Duration = Duration::from_secs(60);

/// A Debian release with the option below.
const RELEASE: &str = "forky";

/// Names metrics and labels as Prometheus does; since version 1.112.
const NAMING: &str = "-opentelemetry.usePrometheusNaming";

/// The program of the package.
#[derive(Clone, Debug)]
pub struct VictoriaMetrics {
    program: PathBuf,
}

/// Receives pushes at `/opentelemetry`; a drop kills it.
#[derive(Debug)]
pub struct VictoriaMetricsServer {
    // Drop order: the process must end before its directory goes.
    _process: ChildProcess,
    _directory: TempDir,
    address: SocketAddr,
}

impl VictoriaMetrics {
    /// Unpacks the package: its installation would start a service. Needs the network, so call it before
    /// [`crate::netns::NetNs::enter`].
    pub fn prepare() -> Result<Self> {
        let package = packages::unpacked_of(RELEASE, "victoria-metrics")?;
        Ok(Self { program: package.join("usr/bin/victoria-metrics") })
    }

    /// Starts a server in the calling thread's namespace, on a free port.
    pub fn start(&self) -> Result<VictoriaMetricsServer> {
        let directory = tempfile::Builder::new().prefix("vm-metrics-victoria-").tempdir();
        let directory = directory.context("make a directory for VictoriaMetrics")?;
        let mut command = Command::new(&self.program);
        command.arg(format!("-storageDataPath={}", directory.path().display()));
        command.args(["-httpListenAddr=127.0.0.1:0", "-memory.allowedBytes=256MiB", NAMING]);
        let mut process = ChildProcess::spawn("VictoriaMetrics", &mut command)?;
        let address = process.wait_for_log(START, "where it listens", listening_address)?;
        Ok(VictoriaMetricsServer { _process: process, _directory: directory, address })
    }
}

impl VictoriaMetricsServer {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the labels of every series; the name is the label `__name__`.
    pub fn series(&self) -> Result<Vec<BTreeMap<String, String>>> {
        // New samples become visible a few seconds later.
        http::get(self.address, "/internal/force_flush", None)?;
        let path = format!("/api/v1/series?match[]={}", http::percent_encode("{__name__!=\"\"}"));
        let response = http::get(self.address, &path, None)?;
        let mut answer: Value = serde_json::from_slice(&response.body).context("read the series")?;
        serde_json::from_value(answer["data"].take()).context("read the labels of the series")
    }
}

fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once("started server at http://")?;
    let (address, _) = after.split_once('/')?;
    address.parse().ok()
}
