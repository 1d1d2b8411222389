//! Runs apt for this machine's or another Debian release.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Every Debian has its keys under one of these names.
const KEYRINGS: [&str; 2] = ["debian-archive-keyring.pgp", "debian-archive-keyring.gpg"];

#[derive(Debug)]
pub(super) struct Apt {
    /// Arguments of `apt-get` and `apt-cache`.
    options: Vec<String>,
}

impl Apt {
    pub(super) fn of_host() -> Self {
        Self { options: Vec::new() }
    }

    /// Configures apt for this release in a directory below `cache`, apart from the system's own.
    pub(super) fn of_release(release: &str, cache: &Path) -> Result<Self> {
        let dir = cache.join("apt").join(release);
        for part in ["lists/partial", "archives/partial", "empty"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let sources = sources_of_release(release)?;
        write(&dir.join("sources.list"), &sources)?;
        // Packages of this machine's release must not count as candidates.
        write(&dir.join("status"), "")?;
        let options = [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "empty"),
            ("Dir::Etc::PreferencesParts", "empty"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", ""),
        ];
        let mut options: Vec<String> =
            options.iter().map(|(name, path)| format!("{name}={}", dir.join(path).display())).collect();
        options.push("Acquire::Languages=none".to_owned());
        options.push("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned());
        Ok(Self { options: options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect() })
    }

    /// Retries with fresh package lists: a new machine has none, and old ones name removed packages.
    pub(super) fn with_fresh_lists<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        if let Ok(value) = attempt() {
            return Ok(value);
        }
        // Not every release has all suites, so a partial update may be enough.
        let updated = run(self.get().arg("update"));
        attempt().map_err(|error| match updated {
            Ok(_) => error,
            Err(update) => error.context(format!("{update:#}")),
        })
    }

    pub(super) fn install(&self, packages: &[&str]) -> Result<()> {
        run(self.get().args(["install", "-y", "--no-install-recommends"]).args(packages)).map(drop)
    }

    /// Downloads the package's .deb into the directory.
    pub(super) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        run(self.get().arg("download").arg(package).current_dir(into))?;
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

    /// Returns the packages that this one depends on.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut cache = Command::new("apt-cache");
        let answer = run(cache.args(&self.options).args(["depends", "--important", package]))?;
        let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        // Waits for another apt on this machine. The user _apt could not write to our directories.
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root"]);
        command.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Returns the machine's sources for another release.
fn sources_of_release(release: &str) -> Result<String> {
    let path = "/etc/os-release";
    let system = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let own = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let own = own.with_context(|| format!("{path} has no VERSION_CODENAME"))?.trim_matches('"');
    let keyring = KEYRINGS.iter().map(|name| Path::new("/usr/share/keyrings").join(name));
    let keyring = keyring.into_iter().find(|path| path.exists());
    let keyring = keyring.context("no debian-archive-keyring in /usr/share/keyrings")?;
    let mut indexes = Apt::of_host().get();
    // apt normalises both formats of sources.
    indexes.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]);
    let sources = translate(&run(indexes.arg("Created-By: Packages"))?, own, release, &keyring);
    ensure!(!sources.is_empty(), "the sources of apt have nothing of {own}, so {release} cannot be found");
    Ok(sources)
}

/// Makes a line of a sources.list for each suite of `own` in lines of `uri suite component`.
fn translate(indexes: &str, own: &str, release: &str, keyring: &Path) -> String {
    let of_own = indexes.lines().filter_map(|line| {
        let (uri, rest) = line.split_once(' ')?;
        let suite = rest.strip_suffix(" main")?.strip_prefix(own)?;
        let is_suite = suite.is_empty() || suite.starts_with('-');
        is_suite.then(|| format!("deb [signed-by={}] {uri} {release}{suite} main\n", keyring.display()))
    });
    of_own.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Runs the command and returns its output; stderr becomes the error.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{text}{complaints}", output.status);
    Ok(text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_main_suites_are_translated() {
        let indexes = "http://a/debian/ bookworm main\nhttp://a/debian/ bookworm main\n\
            http://a/debian/ bookworm contrib\nhttp://a/security/ bookworm-security main\n\
            http://b/ stable main\nhttp://c/ bookwormish main\n";
        let sources = translate(indexes, "bookworm", "trixie", Path::new("/k.gpg"));
        assert_eq!(
            sources,
            "deb [signed-by=/k.gpg] http://a/debian/ trixie main\n\
             deb [signed-by=/k.gpg] http://a/security/ trixie-security main\n"
        );
    }
}
