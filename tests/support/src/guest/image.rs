//! A guest's image: Debian's cloud kernel and an initramfs.
//!
//! The initramfs has busybox, modules, a small init and the files of a test. Both come out of unpacked packages, and
//! the result stays under `target/`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::contents::Contents;
use super::kernel::Kernel;
use super::modules;
use crate::packages;

const INIT: &str = include_str!("init.sh");

/// Kernel and initramfs, ready to boot any number of guests.
#[derive(Clone, Debug)]
pub struct GuestImage {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
}

impl GuestImage {
    /// Prepares a guest with only a network, on the kernel of this machine's Debian release. Needs the network, like
    /// [`Self::build`].
    pub fn prepare() -> Result<Self> {
        Self::build(&Kernel::of_host()?, &Contents::default())
    }

    /// Installs QEMU, downloads the rest and builds the initramfs, if necessary. Needs the network, so call it before
    /// [`crate::netns::NetNs::enter`].
    pub fn build(kernel: &Kernel, contents: &Contents) -> Result<Self> {
        packages::ensure_debian(&["qemu-system-x86"])?;
        let busybox = packages::unpacked("busybox-static")?.join("bin/busybox");
        let initramfs = build_initramfs(&busybox, kernel, contents)?;
        Ok(Self { kernel: kernel.image.clone(), initramfs })
    }
}

/// Builds it anew each time, which takes a tenth of a second.
fn build_initramfs(busybox: &Path, kernel: &Kernel, contents: &Contents) -> Result<PathBuf> {
    let cache = packages::cache_dir()?;
    let scratch = tempfile::tempdir_in(&cache).context("make a directory for the initramfs")?;
    let mut tree = Tree::new(scratch.path().join("root"));
    tree.write("init", INIT.as_bytes())?;
    tree.copy("bin/busybox", busybox)?;

    let mut order = String::new();
    let wanted = [&["virtio_pci", "virtio_net"], contents.modules.as_slice()].concat();
    for module in modules::closure(&kernel.modules, &wanted, busybox)? {
        let name = format!("{}.ko", module.name);
        tree.write(&format!("modules/{name}"), &module.content)?;
        order.push_str(&format!("{name}\n"));
    }
    tree.write("modules/order", order.as_bytes())?;
    for (guest, host) in contents.files() {
        tree.copy(guest.strip_prefix("/").unwrap_or(guest), host)?;
    }

    let archive = scratch.path().join("initramfs");
    pack(busybox, &tree, &archive)?;
    let kind = if contents.files().next().is_some() { "filled" } else { "plain" };
    let done = cache.join(format!("initramfs-{}-{kind}", kernel.release));
    // A rename replaces the file: guests that boot now keep their open file.
    fs::rename(&archive, &done)
        .with_context(|| format!("rename {} to {}", archive.display(), done.display()))?;
    Ok(done)
}

/// The guest's root directory under construction.
#[derive(Debug)]
struct Tree {
    root: PathBuf,
    /// Relative paths in an order that has directories before their entries.
    entries: BTreeSet<PathBuf>,
}

impl Tree {
    fn new(root: PathBuf) -> Self {
        Self { root, entries: BTreeSet::new() }
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.place(Path::new(name))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", path.display()))
    }

    /// Copies a file with its permissions.
    fn copy(&mut self, name: impl AsRef<Path>, from: &Path) -> Result<()> {
        let path = self.place(name.as_ref())?;
        fs::copy(from, &path)
            .with_context(|| format!("copy {} to {}", from.display(), path.display()))
            .map(drop)
    }

    fn place(&mut self, name: &Path) -> Result<PathBuf> {
        let path = self.root.join(name);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let entries = name.ancestors().filter(|entry| !entry.as_os_str().is_empty());
        self.entries.extend(entries.map(Path::to_owned));
        Ok(path)
    }
}

/// Packs the kernel's archive format with the guest's own busybox.
fn pack(busybox: &Path, tree: &Tree, archive: &Path) -> Result<()> {
    let output = fs::File::create(archive).with_context(|| format!("create {}", archive.display()))?;
    let mut cpio = Command::new(busybox);
    cpio.args(["cpio", "-o", "-H", "newc", "-R", "0:0"]).current_dir(&tree.root);
    let mut child =
        cpio.stdin(Stdio::piped()).stdout(output).spawn().with_context(|| format!("run {cpio:?}"))?;
    let list: String = tree.entries.iter().map(|entry| format!("{}\n", entry.display())).collect();
    // The input closes at the end of the statement, which ends cpio's list.
    child.stdin.take().context("cpio has no input")?.write_all(list.as_bytes()).context("write to cpio")?;
    let status = child.wait().context("wait for cpio")?;
    ensure!(status.success(), "{cpio:?}: {status}");
    Ok(())
}
