//! One snapshot of this host by the binary, as JSON.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// The snapshot command with a configuration.
pub(crate) struct OneShot {
    dir: TempDir,
    /// The process whose mount namespace the binary uses; `None` for the test's.
    mounts_of: Option<u32>,
}

impl OneShot {
    pub(crate) fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        Self { dir, mounts_of: None }
    }

    pub(crate) fn among_the_mounts_of(self, pid: u32) -> Self {
        Self { mounts_of: Some(pid), ..self }
    }

    /// Returns the VM of a process, if any.
    pub(crate) fn vm(&self, pid: u32) -> Option<Value> {
        let mut vms = self.vms();
        vms.retain(|vm| vm["hypervisor_pid"] == pid);
        assert!(vms.len() < 2, "twice: {vms:?}");
        vms.pop()
    }

    /// Returns all VMs.
    pub(crate) fn vms(&self) -> Vec<Value> {
        let document: Value = serde_json::from_str(&self.run(&["snapshot", "--json"])).unwrap();
        document["vms"].as_array().unwrap().clone()
    }

    /// Returns `doctor`'s line about a source.
    pub(crate) fn health(&self, source: &str) -> String {
        let report = self.run(&["doctor"]);
        let line = report.lines().find(|line| line.contains(&format!(" source {source} "))).unwrap();
        line.to_owned()
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = match self.mounts_of {
            Some(pid) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.args(["--mount", "--target", &pid.to_string(), BINARY]);
                nsenter
            }
            None => Command::new(BINARY),
        };
        let output =
            command.args(args).arg("--config").arg(self.dir.path().join("config.toml")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
