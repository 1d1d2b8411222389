//! Content of a guest: modules, files, and programs with their libraries.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Loaded at boot in this order, dependencies first.
    pub(super) modules: Vec<&'static str>,
    /// Source paths by path in the guest.
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Contents {
    pub fn add_modules(&mut self, names: &[&'static str]) {
        self.modules.extend(names);
    }

    /// Adds a file at its absolute path on this machine.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        ensure!(path.is_absolute() && path.is_file(), "{} is no absolute path of a file", path.display());
        self.files.insert(path.to_owned(), path.to_owned());
        Ok(())
    }

    /// Adds a program of this machine with its libraries to the guest's `PATH`.
    pub fn add_program(&mut self, name: &str) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let found = found.with_context(|| format!("there is no program {name} here"))?;
        self.add_program_at(&Path::new("/bin").join(name), &found)
    }

    /// Adds a program of this machine with its libraries at another path.
    pub fn add_program_at(&mut self, in_guest: &Path, program: &Path) -> Result<()> {
        for library in libraries(program)? {
            self.files.insert(library.clone(), library);
        }
        self.files.insert(in_guest.to_owned(), program.to_owned());
        Ok(())
    }

    /// Returns each path in the guest with the path here.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files.iter().map(|(guest, host)| (guest.as_path(), host.as_path()))
    }
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    ensure!(output.status.success(), "ldd {}: {}", program.display(), output.status);
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// Returns the paths of lines like `libc.so.6 => /lib/libc.so.6 (0x7f…)` and `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(parse_ldd(text), ["/lib/x/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from));
    }
}
