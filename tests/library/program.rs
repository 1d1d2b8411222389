//! A cargo package in a directory of its own, with its own target directory.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const CODE: &str = r#"
use std::path::Path;

use vm_metrics::Purpose;
use vm_metrics::{Config, Manager};

fn main() {
    let config = Config::parse(Path::new("built in"), "").unwrap();
    let snapshot = Manager::with_config(config, Purpose::Look).unwrap().collect();
    for part in &snapshot.components {
        println!("{}: {:?} {}", part.name, part.health.state, part.health.reason);
    }
}
"#;

pub(crate) struct Program {
    dir: TempDir,
}

impl Program {
    /// Puts `features` after the path of the dependency.
    pub(crate) fn new(features: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = env!("CARGO_MANIFEST_DIR");
        let manifest = format!(
            "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [dependencies]\nvm-metrics = {{ path = {library:?}{features} }}\n\n[profile.dev]\ndebug = false\n\n[workspace]\n"
        );
        fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        // Uses the tested versions, so that new releases change nothing.
        fs::copy(Path::new(library).join("../Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/main.rs"), CODE).unwrap();
        Self { dir }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs cargo with a bpf-linker in `PATH`, like after `cargo install`.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/bin");
        let mut cargo = self.cargo_with_path([tools].into_iter().chain(path()));
        cargo.arg(subcommand);
        if subcommand != "tree" {
            // A target directory outside of the package serves the next run too.
            cargo.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("library"));
        }
        cargo
    }

    /// Runs cargo without a bpf-linker, and with a compiler that lacks the sources of its library.
    pub(crate) fn cargo_without_ebpf_tools(&self, subcommand: &str) -> Command {
        let rustc = self.dir().join("rustc");
        let (nowhere, real) =
            (self.dir().display(), env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = \"--print sysroot\" ] && echo {nowhere} && exit\nexec {real} \"$@\"\n"
        );
        fs::write(&rustc, script).unwrap();
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
        let mut cargo = self.cargo_with_path(path().filter(|dir| !dir.join("bpf-linker").is_file()));
        cargo.arg(subcommand).env("RUSTC", rustc).arg("--target-dir").arg(self.dir().join("target"));
        cargo
    }

    /// Uses the cargo of this test.
    fn cargo_with_path(&self, path: impl Iterator<Item = PathBuf>) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(self.dir()).env("PATH", env::join_paths(path).unwrap());
        cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        cargo
    }
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}
