//! A daemon on a host made of files, which ticks once and pushes often.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;

/// Settings of one test.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Keys of `[exporters.otlp]`; `None` omits the section.
    pub(crate) otlp: Option<String>,
    /// Interval between ticks; by default there is only one tick.
    pub(crate) interval: Option<&'a str>,
    /// Further top-level keys.
    pub(crate) keys: &'a str,
    /// Further tables.
    pub(crate) tables: &'a str,
    pub(crate) variables: &'a [(&'a str, &'a str)],
    /// The files of the host; by default those of the fixture `mixed`.
    pub(crate) host: Option<&'a Path>,
}

/// A daemon and the directory of its configuration.
pub(crate) struct PushDaemon {
    pub(crate) daemon: Daemon,
    _dir: TempDir,
}

impl Setup<'_> {
    pub(crate) fn serve(&self) -> PushDaemon {
        let dir = tempfile::tempdir().unwrap();
        let mixed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mixed");
        let host = self.host.unwrap_or(&mixed);
        let (proc, sys) = (host.join("proc"), host.join("sys"));
        let otlp = self.otlp.as_ref().map(|keys| format!("[exporters.otlp]\n{keys}\n")).unwrap_or_default();
        let config = dir.path().join("config.toml");
        let interval = self.interval.unwrap_or("1h");
        let text = format!(
            "interval = {interval:?}\n{}\n[trust]\nuids = [107]\n[host]\nproc = {proc:?}\nsys = {sys:?}\n{otlp}{}\n",
            self.keys, self.tables
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vm-metrics"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--no-ebpf", "--config"]).arg(&config);
        command.envs(self.variables.iter().copied());
        let daemon = Daemon::start_command(command).unwrap();
        daemon.wait_until_ready().unwrap();
        PushDaemon { daemon, _dir: dir }
    }
}

/// Returns keys for a push to this endpoint, five times a second.
pub(crate) fn often(endpoint: &str, more: &str) -> Option<String> {
    Some(format!("enabled = true\nendpoint = \"{endpoint}\"\ninterval = \"1s\"\n{more}"))
}

impl PushDaemon {
    pub(crate) fn exports(&self, result: &str) -> f64 {
        let metrics = self.daemon.metrics().unwrap();
        metrics.value("vm_exporter_otlp_exports_total", &[("result", result)]).unwrap()
    }

    /// Scrapes until `count` pushes had this result.
    pub(crate) fn wait_for_exports(&self, result: &str, count: f64) {
        let find = || Ok((self.exports(result) >= count).then_some(()));
        vm_metrics_testkit::wait::wait_until(vm_metrics_testkit::wait::SOON, result, find).unwrap();
    }
}

/// Returns the attributes of a resource or of a data point.
pub(crate) fn attributes(of: &Value) -> Vec<(String, String)> {
    let none = Vec::new();
    let pairs = of["attributes"].as_array().unwrap_or(&none);
    let text = |value: &Value| value["stringValue"].as_str().unwrap_or_default().to_owned();
    let pair = |pair: &Value| (pair["key"].as_str().unwrap().to_owned(), text(&pair["value"]));
    let mut pairs: Vec<_> = pairs.iter().map(pair).collect();
    pairs.sort();
    pairs
}

/// Returns the metrics of a request.
pub(crate) fn metrics(request: &Value) -> &Vec<Value> {
    let scope = &request["request"]["resourceMetrics"][0]["scopeMetrics"][0];
    assert_eq!(scope["scope"]["name"], "vm-metrics");
    scope["metrics"].as_array().unwrap()
}
