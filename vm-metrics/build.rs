//! Builds the eBPF objects that the library embeds, with the same toolchain as everything else.
//!
//! Only with the feature `ebpf`. Programs that depend on this crate run it too, so an error for a missing tool names the
//! command that installs it. This script installs nothing itself.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "vm-metrics-ebpf";
const OBJECTS: [&str; 3] = ["vm-metrics", "vm-metrics-drops", "vm-metrics-tasks"];

/// Prefixes of variables that the outer cargo sets for the host build, and that the inner build must not inherit. They hold
/// target and flags of the host, features of this crate, and `clippy-driver`, which emits no code. The flags of the object
/// are in `.cargo/config.toml`.
const NOT_INHERITED: &[&str] =
    &["CARGO_CFG_", "CARGO_ENCODED_RUSTFLAGS", "CARGO_FEATURE_", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"];

/// What `cargo xtask build` installs, too.
const BPF_LINKER: &str =
    "cargo install bpf-linker --version 0.10.4 --locked --no-default-features --features rust-llvm-22";

/// The LLVM of the compiler that this version of bpf-linker is for.
const LLVM: &str = "22";

const WITHOUT_EBPF: &str =
    "or build without eBPF: default-features = false, and the features that are wanted of the others";

/// Why there is no object.
enum Failure {
    /// Each line says what is missing.
    Setup(Vec<String>),
    /// The compiler's own words say it.
    Build(String),
}

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    tell_commit();
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return ExitCode::SUCCESS;
    }
    // The workspace's manifest has the object's profile, cargo's configuration its flags.
    for input in [
        "../vm-metrics-ebpf",
        "../vm-metrics-common",
        "../Cargo.lock",
        "../Cargo.toml",
        "../.cargo/config.toml",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    match embed_objects() {
        Ok(()) => ExitCode::SUCCESS,
        // Cargo shows these lines alone: a script that exits with an error would have its whole output shown.
        Err(Failure::Setup(lines)) => {
            lines.iter().for_each(|line| println!("cargo::error={line}"));
            ExitCode::SUCCESS
        }
        Err(Failure::Build(output)) => {
            eprintln!("{output}");
            ExitCode::FAILURE
        }
    }
}

/// The commit, for `--version`. Not of builds for tests, which each commit would make anew.
fn tell_commit() {
    if env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=VM_METRICS_COMMIT={commit}");
    }
}

/// Leaves the objects where the library's `include_bytes_aligned!` looks for them.
fn embed_objects() -> Result<(), Failure> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = target_dir(&out_dir)?;
    let (path, linker) = path_with_linker(&target_dir.join("tools/bin"))?;
    let missing: Vec<String> =
        [no_linker(linker.as_deref())?, no_rust_src()?].into_iter().flatten().collect();
    if !missing.is_empty() {
        return Err(Failure::Setup(missing.into_iter().chain([WITHOUT_EBPF.to_owned()]).collect()));
    }

    let bpf_dir = target_dir.join("bpf");
    build_objects(&bpf_dir, &path)?;
    for name in OBJECTS {
        let object = bpf_dir.join(TARGET).join("release").join(name);
        let embedded = out_dir.join(format!("{name}.bpf.o"));
        fs::copy(&object, &embedded).map_err(|error| {
            setup(format!("cannot copy {} to {}: {error}", object.display(), embedded.display()))
        })?;
    }
    Ok(())
}

/// One directory for all profiles and for clippy, so that `core` is built once; not the outer build's, which is locked.
fn build_objects(bpf_dir: &Path, path: &OsStr) -> Result<(), Failure> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--release", "-Zbuild-std=core", "--package", PACKAGE, "--target", TARGET]);
    cargo.arg("--target-dir").arg(bpf_dir);
    for (name, _) in env::vars_os() {
        if NOT_INHERITED.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    // `-Z build-std` is for nightly toolchains only; this makes a stable one accept it.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("PATH", path);

    let output =
        cargo.output().map_err(|error| setup(format!("cannot run cargo for the eBPF object: {error}")))?;
    if !output.status.success() {
        return Err(Failure::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(())
}

/// `PATH` with the workspace's own tools first, and the linker in it.
fn path_with_linker(tools: &Path) -> Result<(OsString, Option<PathBuf>), Failure> {
    let path = variable("PATH")?;
    let dirs: Vec<PathBuf> = iter::once(tools.to_owned()).chain(env::split_paths(&path)).collect();
    let linker = dirs.iter().map(|dir| dir.join("bpf-linker")).find(|file| file.is_file());
    let path = env::join_paths(dirs).map_err(|error| setup(format!("PATH: {error}")))?;
    Ok((path, linker))
}

/// The linker reads what the compiler writes: both have the same LLVM.
fn no_linker(linker: Option<&Path>) -> Result<Option<String>, Failure> {
    if let Some(linker) = linker {
        println!("cargo::rerun-if-changed={}", linker.display());
        return Ok(None);
    }
    let version = rustc(&["-vV"])?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let llvm = llvm.and_then(|version| version.split('.').next()).unwrap_or(LLVM);
    let remedy = match llvm {
        LLVM => format!("install it: {BPF_LINKER}"),
        other => format!(
            "install one for LLVM {other}, which this compiler has; for LLVM {LLVM} it is: {BPF_LINKER}"
        ),
    };
    Ok(Some(format!("bpf-linker is not in PATH: {remedy}")))
}

fn no_rust_src() -> Result<Option<String>, Failure> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    Ok((!core.is_dir())
        .then(|| "rust-src is not in the toolchain: add it: rustup component add rust-src".to_owned()))
}

fn rustc(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(variable("RUSTC")?).args(arguments).output();
    let output =
        output.map_err(|error| setup(format!("cannot run rustc {}: {error}", arguments.join(" "))))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directory with one of cargo's marks: it writes the first only where it made the directory itself. Below it a
/// build with `--target` has a directory of its own, with a mark too.
fn target_dir(out_dir: &Path) -> Result<PathBuf, Failure> {
    let triple = variable("TARGET")?;
    let is_marked =
        |dir: &&Path| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|mark| dir.join(mark).is_file());
    let found = out_dir.ancestors().find(|dir| is_marked(dir) && dir.file_name() != Some(triple.as_os_str()));
    found.map(Path::to_owned).ok_or_else(|| setup(format!("no target directory above {}", out_dir.display())))
}

fn variable(name: &str) -> Result<OsString, Failure> {
    env::var_os(name).ok_or_else(|| setup(format!("{name} is not set")))
}

fn setup(line: String) -> Failure {
    Failure::Setup(vec![line])
}
