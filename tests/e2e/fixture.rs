//! Runs the binary on a host made of files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// The user of the processes on these hosts. No kernel is there to name the owner of a TAP.
const TRUST: &str = "[trust]\nuids = [107]\n";

/// A directory for files of a test, with a configuration for a host of `tests/fixtures`.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) config: PathBuf,
}

impl Fixture {
    pub(crate) fn new(host: &str) -> Self {
        Self::with(host, "", "")
    }

    /// Puts `top` before the tables of the configuration, and `tables` after them.
    pub(crate) fn with(host: &str, top: &str, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = tests_dir().join("fixtures").join(host);
        let config = dir.path().join("config.toml");
        let (proc, sys) = (host.join("proc"), host.join("sys"));
        std::fs::write(&config, format!("{top}\n[host]\nproc = {proc:?}\nsys = {sys:?}\n{tables}\n{TRUST}"))
            .unwrap();
        Self { dir, config }
    }

    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Output {
        let config = self.config.to_str().unwrap();
        run(&[&[command, "--config", config], args].concat())
    }

    /// Copies the host, so that the test can break it.
    pub(crate) fn copy_of(host: &str) -> Self {
        let fixture = Self::new(host);
        let copy = fixture.dir.path().join("host");
        let copied =
            Command::new("cp").arg("-r").arg(tests_dir().join("fixtures").join(host)).arg(&copy).status();
        assert!(copied.unwrap().success());
        let (proc, sys) = (copy.join("proc"), copy.join("sys"));
        std::fs::write(&fixture.config, format!("{TRUST}[host]\nproc = {proc:?}\nsys = {sys:?}\n")).unwrap();
        fixture
    }

    /// Returns the path of `/proc` in a [`Self::copy_of`].
    pub(crate) fn proc(&self) -> PathBuf {
        self.dir.path().join("host/proc")
    }

    pub(crate) fn serve(&self) -> Daemon {
        Daemon::start(Path::new(BINARY), &["--no-ebpf", "--config", self.config.to_str().unwrap()]).unwrap()
    }

    /// Allowed only so many open files.
    pub(crate) fn serve_with_files(&self, limit: usize) -> Daemon {
        serve_with_files(limit, &self.config)
    }
}

/// Allowed only so many open files.
pub(crate) fn serve_with_files(limit: usize, config: &Path) -> Daemon {
    let mut shell = Command::new("sh");
    let serve = "exec \"$0\" serve --listen 127.0.0.1:0 --no-ebpf --config \"$1\"";
    shell.args(["-ec", &format!("ulimit -n {limit}; {serve}"), BINARY]).arg(config);
    let daemon = Daemon::start_command(shell).unwrap();
    daemon.wait_until_ready().unwrap();
    daemon
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
