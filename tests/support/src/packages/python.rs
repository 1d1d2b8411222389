//! Packages of PyPI below `target/testkit`, in an environment or just unpacked.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::run;
use super::{cache_dir, ensure_debian, lock, say};

/// The newest Python that all unpacked wheels support.
const NEWEST: &str = "3.13";

/// Returns the interpreter of an environment with exactly these packages, each `name==version`.
pub(crate) fn python_with(name: &str, packages: &[&str]) -> Result<PathBuf> {
    ensure_venv()?;
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let environment = cache.join(name);
    let python = environment.join("bin/python");
    // The mark comes last, so that an incomplete environment is never used.
    let mark = environment.join("packages");
    if fs::read_to_string(&mark).is_ok_and(|known| known == packages.join("\n")) {
        return Ok(python);
    }
    say(&format!("installing {} into {}", packages.join(" "), environment.display()));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    if !packages.is_empty() {
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    }
    fs::write(&mark, packages.join("\n")).with_context(|| format!("write {}", mark.display()))?;
    Ok(python)
}

/// Returns the files of a wheel for any Python. Downloads it once, without installation, and verifies `sha256`.
pub(crate) fn unpacked_wheel(package: &str, sha256: &str) -> Result<PathBuf> {
    let python = python_with("pip", &[])?;
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let tree = cache.join(package);
    if tree.is_dir() {
        return Ok(tree);
    }
    say(&format!("downloading {package}"));
    let scratch =
        tempfile::tempdir_in(&cache).with_context(|| format!("make a directory in {}", cache.display()))?;
    let requirements = scratch.path().join("requirements.txt");
    fs::write(&requirements, format!("{package} --hash=sha256:{sha256}\n"))
        .with_context(|| format!("write {}", requirements.display()))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]);
    pip.args(["--only-binary", ":all:", "--python-version", NEWEST]);
    run(pip.arg("--dest").arg(scratch.path()).arg("--requirement").arg(&requirements))?;
    let wheel = fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path());
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let wheel = wheel.with_context(|| format!("pip has left no wheel of {package}"))?;
    let unpacked = scratch.path().join("tree");
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked))?;
    // The rename at the end keeps incomplete packages apart, as for Debian packages.
    fs::rename(&unpacked, &tree)
        .with_context(|| format!("rename {} to {}", unpacked.display(), tree.display()))?;
    Ok(tree)
}

/// Installs Debian's separate package of venv.
fn ensure_venv() -> Result<()> {
    let has = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if has.is_ok_and(|answer| answer.status.success()) {
        return Ok(());
    }
    ensure_debian(&["python3-venv"])
}
