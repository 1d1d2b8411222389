//! Builds the tests and the daemon without debug information.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    command::{cargo, output, run},
    tools,
    workspace::Workspace,
};

const SUITE: &str = "privileged";
/// Files with users and groups, because tests add a user.
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];
/// Child processes of tests that are tests by name only: see `vm_process` in the testkit, and `vmm` in the suite.
const NO_TESTS: [&str; 2] = ["::stand_in_vm", "vmm::vmm"];
/// Tests that run on the machine only. Those of tenants need a whole system with users, FUSE and a writable `/run`, and
/// do not depend on the kernel's version. A guest has no KVM. Those of commands ask the kernel for a socket's owner,
/// for which a guest lacks the module.
const NOT_IN_A_GUEST: [&str; 3] = ["hostile::", "kvm::", "operator::"];

#[derive(Debug)]
pub struct Binaries {
    pub suite: PathBuf,
    /// The suite and the daemon.
    pub programs: Vec<StrippedBinary>,
    /// Other files of this machine for the tests.
    pub files: Vec<PathBuf>,
    pub tests: Vec<String>,
}

/// A program without debug information, which would double the boot time of a guest.
#[derive(Debug)]
pub struct StrippedBinary {
    /// Its path after the build, and in the guest.
    pub path: PathBuf,
    pub stripped: PathBuf,
}

/// A line of cargo's messages about an executable.
#[derive(Debug, Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

impl Binaries {
    pub fn build(workspace: &Workspace) -> Result<Self> {
        tools::ensure_bpf(workspace)?;
        // Builds like the suite on this machine, so that nothing is built twice.
        let mut cargo = cargo(workspace, "test");
        cargo.args(["--test", SUITE, "--no-run", "--message-format=json-render-diagnostics"]);
        let messages = output(&mut cargo)?;
        let suite = executable(&messages, SUITE)?;
        let daemon = executable(&messages, "vm-metrics")?;
        let list = output(Command::new(&suite).args(["--list", "--format", "terse"]).stdin(Stdio::null()))?;
        let directory = workspace.target.join("guest");
        let programs = vec![strip(suite.clone(), &directory)?, strip(daemon, &directory)?];
        let (left_out, tests): (Vec<_>, Vec<_>) = names(&list)
            .into_iter()
            .partition(|test| NOT_IN_A_GUEST.iter().any(|suite| test.starts_with(suite)));
        eprintln!(
            "xtask: {} tests of hostile tenants, of KVM and of commands run on the machine only",
            left_out.len()
        );
        Ok(Self { suite, programs, files: ACCOUNTS.map(PathBuf::from).into(), tests })
    }
}

fn strip(path: PathBuf, directory: &Path) -> Result<StrippedBinary> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let stripped = directory.join(path.file_name().context("a program without a name")?);
    run(Command::new("strip").arg("--strip-debug").arg("-o").args([&stripped, &path]))?;
    Ok(StrippedBinary { path, stripped })
}

fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    let found = messages.lines().find_map(|line| {
        let message: Message = serde_json::from_str(line).ok()?;
        (message.target?.name == name).then_some(message.executable).flatten()
    });
    found.with_context(|| format!("cargo has built no {name}"))
}

/// Parses lines like `module::name: test`.
fn names(list: &str) -> Vec<String> {
    let tests = list.lines().filter_map(|line| line.strip_suffix(": test"));
    tests.filter(|name| !NO_TESTS.iter().any(|no_test| name.ends_with(no_test))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"x\",\"target\":{\"name\":\"privileged\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"other\"},\"executable\":\"/o\"}\n{\"success\":true}\n\
            {\"target\":{\"name\":\"privileged\"},\"executable\":\"/p\"}\n";
        assert_eq!(executable(messages, "privileged").unwrap(), PathBuf::from("/p"));
        assert!(executable(messages, "daemon").is_err());
    }

    #[test]
    fn helper_processes_are_not_listed() {
        assert_eq!(
            names("a::b: test\ncapabilities::stand_in_vm: test\nvmm::vmm: test\nc: bench\n"),
            ["a::b"]
        );
    }
}
