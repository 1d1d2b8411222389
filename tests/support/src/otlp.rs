//! A real OTLP receiver over gRPC and HTTP, with optional TLS.
//!
//! The process uses the official protobufs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::child::ChildProcess;
use crate::packages;
use crate::wait::wait_until;

const PACKAGES: &[&str] = &["grpcio==1.85.1", "opentelemetry-proto==1.45.2", "trustme==1.2.1"];

/// Time limit of the start: Python is slow on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Records all requests; a drop kills it.
#[derive(Debug)]
pub struct OtlpSink {
    process: ChildProcess,
    grpc_port: u64,
    http_port: u64,
}

impl OtlpSink {
    /// Starts it with options of `otlp_sink.py`.
    pub fn start(options: &[&str]) -> Result<Self> {
        let python = packages::python_with("otlp-sink", PACKAGES)?;
        let mut command = Command::new(python);
        command.args(["-c", include_str!("otlp_sink.py")]).args(options);
        let mut process = ChildProcess::spawn("OTLP sink", &mut command)?;
        let ports = process.wait_for_log(START, "where it listens", |log| lines(log).into_iter().next())?;
        let port = |name: &str| ports[name].as_u64().with_context(|| format!("no {name} in {ports}"));
        let (grpc_port, http_port) = (port("grpc_port")?, port("http_port")?);
        Ok(Self { process, grpc_port, http_port })
    }

    /// Returns `localhost` with the gRPC port.
    pub fn grpc(&self) -> String {
        format!("localhost:{}", self.grpc_port)
    }

    /// Returns `localhost` with the HTTP port.
    pub fn http(&self) -> String {
        format!("localhost:{}", self.http_port)
    }

    /// Returns the requests so far: `transport`, `path`, `headers`, and `request` in protobuf's JSON.
    pub fn requests(&self) -> Vec<Value> {
        lines(&self.process.log()).into_iter().skip(1).collect()
    }

    /// Waits for the first request.
    pub fn wait_for_request(&self, deadline: Duration) -> Result<Value> {
        wait_until(deadline, "a push to the OTLP sink", || Ok(self.requests().into_iter().next()))
    }
}

/// Parses the complete lines of JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
