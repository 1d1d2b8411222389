//! The tests and the daemon, linked into one file each.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    command::{cargo, output},
    tools,
    workspace::Workspace,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The C library of the machine, which comes with what every Rust program is linked with. Without debug information the
/// guest is up in half the time.
const FLAGS: &str = "-C target-feature=+crt-static -C strip=debuginfo";

const SUITE: &str = "privileged";
/// Tests by name only, for they are the processes that tests start: see `vm_process` in the testkit, and `vmm` in the suite.
const NO_TESTS: [&str; 2] = ["::stand_in_vm", "vmm::vmm"];
/// Tests of how the daemon treats tenants. They need a whole system: users, FUSE, a writable `/run`. None of them depends
/// on the kernel's version, so they run on the machine only. Nor has a guest KVM.
const NOT_IN_A_GUEST: [&str; 2] = ["hostile::", "kvm::"];

#[derive(Debug)]
pub struct Binaries {
    pub suite: PathBuf,
    /// The suite and all that it looks for: the daemon where it was built, and what a test reads by a path that goes
    /// up from its package.
    pub files: Vec<PathBuf>,
    pub tests: Vec<String>,
}

/// A line of cargo's messages, as far as it is about something that can be run.
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
        eprintln!("xtask: a static build of the tests and the daemon");
        let mut cargo = cargo(workspace, "test");
        cargo.args(["--package", "vm-metrics", "--test", SUITE, "--no-run", "--target", TARGET]);
        cargo.arg("--message-format=json-render-diagnostics");
        // For this target only: what runs while building, such as build scripts, is linked as ever.
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", FLAGS);
        let messages = output(&mut cargo)?;
        let suite = executable(&messages, SUITE)?;
        let daemon = executable(&messages, "vm-metrics")?;
        let list = output(Command::new(&suite).args(["--list", "--format", "terse"]).stdin(Stdio::null()))?;
        let [manifest, readme] = ["vm-metrics/Cargo.toml", "README.md"].map(|file| workspace.root.join(file));
        let files = vec![suite.clone(), daemon, manifest, readme];
        let (left_out, tests): (Vec<_>, Vec<_>) = names(&list)
            .into_iter()
            .partition(|test| NOT_IN_A_GUEST.iter().any(|suite| test.starts_with(suite)));
        eprintln!("xtask: {} tests of hostile tenants and of KVM run on the machine only", left_out.len());
        Ok(Self { suite, files, tests })
    }
}

fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    let found = messages.lines().find_map(|line| {
        let message: Message = serde_json::from_str(line).ok()?;
        (message.target?.name == name).then_some(message.executable).flatten()
    });
    found.with_context(|| format!("cargo has built no {name}"))
}

/// Of lines like `module::name: test`.
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
    fn what_is_no_test_is_not_in_the_list() {
        assert_eq!(names("a::b: test\nrights::stand_in_vm: test\nvmm::vmm: test\nc: bench\n"), ["a::b"]);
    }
}
