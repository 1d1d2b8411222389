//! Where things are in this workspace, as cargo tells it.

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
    /// The workspace of the current directory.
    pub fn find() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let metadata =
            command::output(Command::new(cargo).args(["metadata", "--no-deps", "--format-version=1"]))?;
        serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")
    }

    /// Where the workspace's own tools are installed: `bin` below it holds the binaries.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The daemon as built by `cargo xtask build`.
    pub fn daemon(&self, profile: &str) -> PathBuf {
        self.target.join(profile).join("vm-metrics")
    }

    /// Names of the integration tests, in the order of the manifests.
    pub fn integration_tests(&self) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name.as_str())
            .collect()
    }
}
