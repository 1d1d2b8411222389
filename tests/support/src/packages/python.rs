//! Packages of PyPI, in an environment of their own below `target/testkit`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::run;
use super::{cache_dir, ensure_debian, lock, say};

/// The interpreter of an environment that has exactly these packages, each `name==version`.
pub(crate) fn python_with(name: &str, packages: &[&str]) -> Result<PathBuf> {
    ensure_venv()?;
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let environment = cache.join(name);
    let python = environment.join("bin/python");
    // Written last: a half installed environment is never taken for a whole one.
    let mark = environment.join("packages");
    if fs::read_to_string(&mark).is_ok_and(|known| known == packages.join("\n")) {
        return Ok(python);
    }
    say(&format!("installing {} into {}", packages.join(" "), environment.display()));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    fs::write(&mark, packages.join("\n")).with_context(|| format!("write {}", mark.display()))?;
    Ok(python)
}

/// Debian has it in a package of its own.
fn ensure_venv() -> Result<()> {
    let has = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if has.is_ok_and(|answer| answer.status.success()) {
        return Ok(());
    }
    ensure_debian(&["python3-venv"])
}
