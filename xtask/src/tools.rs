//! Installs the tools for builds and checks, each with a line of output.
//!
//! Tools go below `target/`, and parts of the toolchain come by rustup.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    command::{cargo, output, run},
    workspace::Workspace,
};

/// A program from crates.io, at exactly one version.
#[derive(Debug)]
struct Tool {
    name: &'static str,
    version: &'static str,
    /// Arguments of `cargo install`.
    arguments: &'static [&'static str],
    takes: &'static str,
}

/// 0.10 links with the LLVM 22 inside the pinned toolchain; from 0.11 on it wants one of the system.
const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.4",
    arguments: &["--no-default-features", "--features", "rust-llvm-22"],
    takes: "about a minute",
};

/// Without optimisation and unused features it builds in half the time.
const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    arguments: &["--debug", "--no-default-features"],
    takes: "about two minutes",
};

/// A component of the toolchain, and a file that proves its presence.
#[derive(Debug)]
struct Component {
    name: &'static str,
    mark: &'static str,
}

const RUST_SRC: Component = Component { name: "rust-src", mark: "lib/rustlib/src/rust/library/core" };
const RUSTFMT: Component = Component { name: "rustfmt", mark: "bin/rustfmt" };
const CLIPPY: Component = Component { name: "clippy", mark: "bin/clippy-driver" };

/// Installs the tools for the eBPF object.
pub fn ensure_bpf(workspace: &Workspace) -> Result<()> {
    ensure_component(workspace, &RUST_SRC)?;
    ensure_tool(workspace, &BPF_LINKER).map(drop)
}

/// Installs `cargo fmt` and `cargo clippy`.
pub fn ensure_lints(workspace: &Workspace) -> Result<()> {
    ensure_component(workspace, &RUSTFMT)?;
    ensure_component(workspace, &CLIPPY)
}

pub fn ensure_cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    ensure_tool(workspace, &CARGO_DENY)
}

fn ensure_component(workspace: &Workspace, component: &Component) -> Result<()> {
    let Component { name, mark } = component;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&workspace.root))?;
    if Path::new(&sysroot).join(mark).exists() {
        return Ok(());
    }
    eprintln!("xtask: adding {name} to the toolchain in {sysroot}");
    run(Command::new("rustup").args(["component", "add", name]).current_dir(&workspace.root)).with_context(
        || format!("{name} is missing from the toolchain in {sysroot}, and rustup could not add it"),
    )
}

fn ensure_tool(workspace: &Workspace, tool: &Tool) -> Result<PathBuf> {
    let Tool { name, version, arguments, takes } = tool;
    let root = workspace.tools();
    let binary = root.join("bin").join(name);
    let wanted = format!("{name} {version}");
    if binary.exists() && output(Command::new(&binary).arg("--version"))? == wanted {
        return Ok(binary);
    }
    eprintln!("xtask: installing {wanted} into {} ({takes})", root.display());
    let build = root.join("build");
    run(cargo(workspace, "install")
        .args(["--quiet", "--locked", "--force", "--version", version])
        .args(*arguments)
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&build)
        .arg(name))?;
    std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A build of the library without this program gives the same advice.
    #[test]
    fn script_and_docs_name_the_same_linker() {
        let script = include_str!("../../vm-metrics/build.rs");
        let Tool { name, version, arguments, .. } = BPF_LINKER;
        let command =
            format!("\"cargo install {name} --version {version} --locked {}\"", arguments.join(" "));
        assert!(script.contains(&command), "{command}");
    }
}
