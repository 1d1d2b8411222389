//! Debian packages that the tests run.

/// Installs the Debian packages that are missing.
pub fn ensure_debian(packages: &[&str]) -> anyhow::Result<()> {
    let status =
        std::process::Command::new("apt-get").args(["install", "-qq", "-y"]).args(packages).status()?;
    anyhow::ensure!(status.success(), "cannot install {}", packages.join(" "));
    Ok(())
}
