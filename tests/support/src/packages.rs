//! Debian packages: installed when the system is to have them, or just downloaded and unpacked under `target/`.
//!
//! Unpacking is for what must not change the machine: the guest's kernel, busybox-static (which would replace
//! busybox), prometheus (which would start a service). It needs the network, so do it before
//! [`crate::netns::NetNs::enter`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

/// Where unpacked packages, and what is made of them, are kept: `target/testkit`.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testkit");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("resolve {}", dir.display()))
}

/// Sees to it that the packages are installed.
pub fn ensure_debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(geteuid().is_root(), "not installed, and only root can: apt-get install {}", missing.join(" "));
    let _lock = lock(&cache_dir()?)?;
    say(&format!("installing {}", missing.join(" ")));
    with_fresh_lists(|| {
        let mut install = apt_get();
        install.args(["install", "-y", "--no-install-recommends"]).args(&missing);
        run(&mut install).map(drop)
    })
}

/// The package's files below a directory of its own, downloaded once and not installed.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let dir = cache.join(package);
    let _lock = lock(&cache)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let scratch =
        tempfile::tempdir_in(&cache).with_context(|| format!("make a directory in {}", cache.display()))?;
    let deb = download_deb(package, scratch.path())?;
    let tree = scratch.path().join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    // Renamed when complete: a half unpacked package is never taken for a whole one.
    fs::rename(&tree, &dir).with_context(|| format!("rename {} to {}", tree.display(), dir.display()))?;
    Ok(dir)
}

/// The package that this one depends on and whose name begins so: a meta package's real one.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let _lock = lock(&cache_dir()?)?;
    with_fresh_lists(|| {
        let answer = run(Command::new("apt-cache").args(["depends", "--important", package]))?;
        let mut names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let found = names.find(|name| name.starts_with(prefix));
        found.map(str::to_owned).with_context(|| format!("{package} depends on no {prefix}*"))
    })
}

/// Downloads the package's .deb into the directory.
fn download_deb(package: &str, into: &Path) -> Result<PathBuf> {
    say(&format!("downloading {package}"));
    with_fresh_lists(|| run(apt_get().arg("download").arg(package).current_dir(into)).map(drop))?;
    let prefix = format!("{package}_");
    for entry in fs::read_dir(into).with_context(|| format!("read {}", into.display()))? {
        let path = entry.with_context(|| format!("read {}", into.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            return Ok(path);
        }
    }
    bail!("apt-get download {package} has left no {prefix}*.deb in {}", into.display())
}

/// Held until dropped: apt itself fails when it runs twice at the same time.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// A fresh machine has no package lists, and old lists name packages that are no longer there.
fn with_fresh_lists<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    if let Ok(value) = attempt() {
        return Ok(value);
    }
    run(apt_get().arg("update"))?;
    attempt()
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    query.is_ok_and(|answer| answer.status.success() && answer.stdout == b"installed")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt on the machine is waited for. As the user _apt it could not write to our directories.
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root"]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs to the end and gives what was said; its complaints become the error.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{complaints}", output.status);
    Ok(text)
}

fn say(what: &str) {
    eprintln!("testkit: {what}");
}
