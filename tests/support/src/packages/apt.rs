//! apt with the configuration of this machine, or of another Debian release by the mirrors that this machine uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Its keys are in a Debian of any age; under the one name or the other.
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

    /// Sources and lists in a directory of their own, below the given one; the system's are not touched.
    pub(super) fn of_release(release: &str, cache: &Path) -> Result<Self> {
        let dir = cache.join("apt").join(release);
        for part in ["lists/partial", "archives/partial", "empty"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let sources = sources_of_release(release)?;
        write(&dir.join("sources.list"), &sources)?;
        // What is installed here is of another release and must not count as a candidate.
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

    /// A fresh machine has no package lists, and old lists name packages that are no longer there.
    pub(super) fn with_fresh_lists<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        if let Ok(value) = attempt() {
            return Ok(value);
        }
        // Not every release has each of the suites, so an update that fails in part may do.
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

    /// The packages that this one cannot do without.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut cache = Command::new("apt-cache");
        let answer = run(cache.args(&self.options).args(["depends", "--important", package]))?;
        let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        // Another apt on the machine is waited for. As the user _apt it could not write to our directories.
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root"]);
        command.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// The machine's sources with the name of its own release replaced.
fn sources_of_release(release: &str) -> Result<String> {
    let path = "/etc/os-release";
    let system = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let own = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let own = own.with_context(|| format!("{path} has no VERSION_CODENAME"))?.trim_matches('"');
    let keyring = KEYRINGS.iter().map(|name| Path::new("/usr/share/keyrings").join(name));
    let keyring = keyring.into_iter().find(|path| path.exists());
    let keyring = keyring.context("no debian-archive-keyring in /usr/share/keyrings")?;
    let mut indexes = Apt::of_host().get();
    // What apt makes of the sources, in whichever of the two formats they are written.
    indexes.args(["indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]);
    let sources = translate(&run(indexes.arg("Created-By: Packages"))?, own, release, &keyring);
    ensure!(!sources.is_empty(), "the sources of apt have nothing of {own}, so {release} cannot be found");
    Ok(sources)
}

/// One line of a sources.list for each suite of `own` in lines of `uri suite component`.
fn translate(indexes: &str, own: &str, release: &str, keyring: &Path) -> String {
    let of_own = indexes.lines().filter_map(|line| {
        let (uri, rest) = line.split_once(' ')?;
        let suite = rest.strip_suffix(" main")?.strip_prefix(own)?;
        let is_suite = suite.is_empty() || suite.starts_with('-');
        is_suite.then(|| format!("deb [signed-by={}] {uri} {release}{suite} main\n", keyring.display()))
    });
    of_own.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Runs to the end and gives what was said; its complaints become the error.
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
