//! What a guest boots: Debian's cloud kernel, and an initramfs of busybox, the virtio modules and a small init.
//!
//! Both come out of packages that are unpacked and not installed; the result is kept under `target/`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

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
    /// Installs QEMU, downloads the rest and builds the initramfs, as far as that is not done. Needs the network, so
    /// call it before [`crate::netns::NetNs::enter`].
    pub fn prepare() -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "guests are made for x86_64 hosts only");
        packages::ensure_debian(&["qemu-system-x86"])?;
        let busybox = packages::unpacked("busybox-static")?;
        let package = packages::dependency("linux-image-cloud-amd64", "linux-image-")?;
        let kernel_tree = packages::unpacked(&package)?;
        let kernel = only_child(&kernel_tree.join("boot"), "vmlinuz-")?;
        let initramfs = build_initramfs(&busybox.join("bin/busybox"), &kernel_tree)?;
        Ok(Self { kernel, initramfs })
    }
}

/// Takes a tenth of a second, so it is simply done again when something may have changed.
fn build_initramfs(busybox: &Path, kernel_tree: &Path) -> Result<PathBuf> {
    let cache = packages::cache_dir()?;
    let scratch = tempfile::tempdir_in(&cache).context("make a directory for the initramfs")?;
    let root = scratch.path().join("root");
    let modules_dir = root.join("modules");
    for dir in [&root.join("bin"), &modules_dir] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::copy(busybox, root.join("bin/busybox")).with_context(|| format!("copy {}", busybox.display()))?;
    write_executable(&root.join("init"), INIT)?;

    let tree = only_child(&kernel_tree.join("lib/modules"), "")?;
    let mut files = vec!["init".to_owned(), "bin".into(), "bin/busybox".into(), "modules".into()];
    let mut order = String::new();
    for module in modules::closure(&tree, &["virtio_pci", "virtio_net"], busybox)? {
        let name = format!("{}.ko", module.name);
        let path = modules_dir.join(&name);
        fs::write(&path, &module.content).with_context(|| format!("write {}", path.display()))?;
        order.push_str(&format!("{name}\n"));
        files.push(format!("modules/{name}"));
    }
    fs::write(modules_dir.join("order"), order).context("write the order of the modules")?;
    files.push("modules/order".into());

    let archive = scratch.path().join("initramfs");
    pack(busybox, &root, &files, &archive)?;
    let done = cache.join("initramfs");
    // Renamed into place: guests that boot at this moment keep the file they have opened.
    fs::rename(&archive, &done)
        .with_context(|| format!("rename {} to {}", archive.display(), done.display()))?;
    Ok(done)
}

/// The archive format of the kernel, by the very busybox that goes into it.
fn pack(busybox: &Path, root: &Path, files: &[String], archive: &Path) -> Result<()> {
    let output = fs::File::create(archive).with_context(|| format!("create {}", archive.display()))?;
    let mut cpio = Command::new(busybox);
    cpio.args(["cpio", "-o", "-H", "newc", "-R", "0:0"]).current_dir(root);
    let mut child =
        cpio.stdin(Stdio::piped()).stdout(output).spawn().with_context(|| format!("run {cpio:?}"))?;
    let list = files.join("\n") + "\n";
    // Dropped at the end of the statement: cpio then sees the end of the list.
    child.stdin.take().context("cpio has no input")?.write_all(list.as_bytes()).context("write to cpio")?;
    let status = child.wait().context("wait for cpio")?;
    ensure!(status.success(), "{cpio:?}: {status}");
    Ok(())
}

fn only_child(dir: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("no {prefix}* in {}", dir.display())
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}
