//! Debian packages, installed or just unpacked under `target/`.
//!
//! Some packages must not change the machine: the guest's kernel, busybox-static (would replace busybox), and
//! prometheus (would start a service). Downloads need the network, so call them before [`crate::netns::NetNs::enter`].

mod apt;
mod python;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use self::apt::{Apt, run};
pub(crate) use self::python::{python_with, unpacked_wheel};

/// Returns the directory of unpacked packages and their products: `target/testkit`.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testkit");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("resolve {}", dir.display()))
}

/// Installs missing packages.
pub fn ensure_debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(geteuid().is_root(), "not installed, and only root can: apt-get install {}", missing.join(" "));
    let _lock = lock(&cache_dir()?)?;
    say(&format!("installing {}", missing.join(" ")));
    let apt = Apt::of_host();
    apt.with_fresh_lists(|| apt.install(&missing))
}

/// Returns the package's files below a directory of its own. Downloads it once, without installation.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let apt = Apt::of_host();
    apt.with_fresh_lists(|| unpack(&apt, &[package], &cache.join(package)))
}

/// Returns the files of a package of another Debian release.
pub(crate) fn unpacked_of(release: &str, package: &str) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let apt = Apt::of_release(release, &cache)?;
    apt.with_fresh_lists(|| unpack(&apt, &[package], &cache.join(format!("{package}-{release}"))))
}

/// Returns the cloud kernel's files of a Debian release, as [`unpacked`]. `None` is this machine's release.
pub(crate) fn unpacked_kernel(release: Option<&str>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let apt = match release {
        Some(release) => Apt::of_release(release, &cache)?,
        None => Apt::of_host(),
    };
    apt.with_fresh_lists(|| {
        let kernel = apt.dependencies("linux-image-cloud-amd64")?;
        let image = kernel.iter().find(|name| name.starts_with("linux-image-"));
        let image = image.context("linux-image-cloud-amd64 depends on no linux-image-*")?;
        let version = image.trim_start_matches("linux-image");
        // Newer releases split kernel, modules and configuration into several packages.
        let parts = apt.dependencies(image)?;
        let mut packages: Vec<&str> =
            parts.iter().map(String::as_str).filter(|name| name.ends_with(version)).collect();
        packages.push(image);
        unpack(&apt, &packages, &cache.join(image))
    })
}

fn unpack(apt: &Apt, packages: &[&str], dir: &Path) -> Result<PathBuf> {
    if dir.is_dir() {
        return Ok(dir.to_owned());
    }
    let parent = dir.parent().unwrap_or(dir);
    let scratch =
        tempfile::tempdir_in(parent).with_context(|| format!("make a directory in {}", parent.display()))?;
    let tree = scratch.path().join("tree");
    for package in packages {
        say(&format!("downloading {package}"));
        let deb = apt.download(package, scratch.path())?;
        run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    }
    // The rename at the end keeps incomplete packages apart.
    fs::rename(&tree, dir).with_context(|| format!("rename {} to {}", tree.display(), dir.display()))?;
    Ok(dir.to_owned())
}

/// Locks the cache until the drop, because two apt processes at a time fail.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    query.is_ok_and(|answer| answer.status.success() && answer.stdout == b"installed")
}

fn say(what: &str) {
    eprintln!("testkit: {what}");
}
