//! Paths of this workspace, according to cargo.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command;

#[derive(Debug, Deserialize)]
pub struct Workspace {
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
    pub packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    /// Finds the workspace of the current directory.
    pub fn find() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let metadata =
            command::output(Command::new(cargo).args(["metadata", "--no-deps", "--format-version=1"]))?;
        serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")
    }

    /// Returns the directory of the workspace's own tools, with the programs in `bin`.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Returns the daemon of `cargo xtask build`.
    pub fn daemon(&self, profile: &str) -> PathBuf {
        self.target.join(profile).join("vm-metrics")
    }

    /// Returns the names of the integration tests, in the order of the manifests.
    pub fn integration_tests(&self) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name.as_str())
            .collect()
    }
}
