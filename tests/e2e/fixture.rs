//! A host made of files, and the binary looking at it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// A directory for what a test writes, with a configuration that points at a host of `tests/fixtures`.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) config: PathBuf,
}

impl Fixture {
    pub(crate) fn new(host: &str) -> Self {
        Self::with(host, "", "")
    }

    /// `top` goes before the tables of the configuration, `tables` after them.
    pub(crate) fn with(host: &str, top: &str, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = tests_dir().join("fixtures").join(host);
        let config = dir.path().join("config.toml");
        let (proc, sys) = (host.join("proc"), host.join("sys"));
        std::fs::write(&config, format!("{top}\n[host]\nproc = {proc:?}\nsys = {sys:?}\n{tables}\n"))
            .unwrap();
        Self { dir, config }
    }

    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Output {
        let config = self.config.to_str().unwrap();
        run(&[&[command, "--config", config], args].concat())
    }

    pub(crate) fn serve(&self) -> Daemon {
        Daemon::start(Path::new(BINARY), &["--no-ebpf", "--config", self.config.to_str().unwrap()]).unwrap()
    }
}

pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}
