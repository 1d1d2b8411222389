//! Orders a guest's kernel modules, dependencies first.
//!
//! The package has no `modules.dep`, which only its installation would make. Each module names its own dependencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    /// The ELF file, not compressed.
    pub(super) content: Vec<u8>,
}

/// Returns these modules of the tree `lib/modules/<version>` with their dependencies, without built-in ones.
pub(super) fn closure(tree: &Path, wanted: &[&str], busybox: &Path) -> Result<Vec<Module>> {
    let built_in = tree.join("modules.builtin");
    let built_in = fs::read_to_string(&built_in).with_context(|| format!("read {}", built_in.display()))?;
    let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut files = BTreeMap::new();
    find_files(tree, &mut files)?;
    let mut search = Search { files, built_in, busybox, done: Vec::new() };
    for name in wanted {
        search.add(name)?;
    }
    Ok(search.done)
}

struct Search<'a> {
    files: BTreeMap<String, PathBuf>,
    built_in: Vec<String>,
    busybox: &'a Path,
    done: Vec<Module>,
}

impl Search<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        let known = |other: &str| other == name;
        if self.done.iter().any(|module| known(&module.name))
            || self.built_in.iter().any(|other| known(other))
        {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let content = read(path, self.busybox)?;
        for dependency in dependencies(&content).with_context(|| format!("look into {}", path.display()))? {
            self.add(&dependency)?;
        }
        self.done.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

/// Reads the field `depends=` of the section `.modinfo`, whose entries end with a zero byte.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    const FIELD: &[u8] = b"\0depends=";
    let at = module.windows(FIELD.len()).position(|window| window == FIELD).context("no depends= in it")?;
    let value = &module[at + FIELD.len()..];
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = std::str::from_utf8(value).context("depends= is not UTF-8")?;
    Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn read(path: &Path, busybox: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new(busybox).arg("xzcat").arg(path).output();
        let output = output.with_context(|| format!("run {} xzcat", busybox.display()))?;
        ensure!(output.status.success(), "xzcat {}: {}", path.display(), output.status);
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

fn find_files(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        if path.is_dir() {
            find_files(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// Returns `virtio_net` for `…/virtio-net.ko.xz`: module names treat both characters alike.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_have_no_hyphen_or_suffix() {
        assert_eq!(module_name(Path::new("kernel/a/virtio-rng.ko")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("kernel/a/virtio_net.ko.xz")).as_deref(), Some("virtio_net"));
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        let module = b"\x7fELF\0license=GPL\0depends=virtio_ring,virtio\0retpoline=Y\0";
        assert_eq!(dependencies(module).unwrap(), ["virtio_ring", "virtio"]);
        assert_eq!(dependencies(b"\0depends=\0").unwrap(), Vec::<String>::new());
        assert!(dependencies(b"no module").is_err());
    }
}
