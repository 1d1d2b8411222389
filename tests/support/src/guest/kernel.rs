//! Debian's cloud kernels: small, and made for virtual machines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::packages;

/// A kernel and its modules, unpacked and not installed.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The output of `uname -r`: `6.1.0-56-cloud-amd64`.
    pub release: String,
    pub(super) image: PathBuf,
    /// `lib/modules/<release>`.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Gets the kernel of this machine's Debian release. Needs the network, as below.
    pub fn of_host() -> Result<Self> {
        Self::unpack(None)
    }

    /// Gets the kernel of another Debian release from this machine's mirrors.
    pub fn of_debian(release: &str) -> Result<Self> {
        packages::ensure_debian(&["debian-archive-keyring"])?;
        Self::unpack(Some(release)).with_context(|| format!("get the kernel of Debian {release}"))
    }

    fn unpack(debian: Option<&str>) -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "guests are made for x86_64 hosts only");
        let tree = packages::unpacked_kernel(debian)?;
        // The first path was used before the merge of /usr, the second since.
        let modules = ["lib/modules", "usr/lib/modules"].map(|dir| tree.join(dir));
        let modules = modules.into_iter().find(|dir| dir.is_dir());
        let modules = modules.with_context(|| format!("no modules in {}", tree.display()))?;
        let release = only_child(&modules)?;
        let modules = modules.join(&release);
        let images = [tree.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = images.into_iter().find(|image| image.is_file());
        let image = image.with_context(|| format!("no kernel in {}", tree.display()))?;
        Ok(Self { release, image, modules })
    }
}

fn only_child(dir: &Path) -> Result<String> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", dir.display()))?;
    let entry = entry.with_context(|| format!("read {}", dir.display()))?;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
