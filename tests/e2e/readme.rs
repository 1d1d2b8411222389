//! README.md keeps its word: every command in it works or is one of CI's, every configuration in it is good, every
//! metric in it exists.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;

use crate::fixture::{BINARY, run, stderr, tests_dir};

/// For someone with five minutes.
const MAX_LINES: usize = 200;

/// The library's name, which looks like a metric's.
const LIBRARY: &str = "vm_metrics";

#[test]
fn is_short() {
    assert!(readme().lines().count() < MAX_LINES);
}

/// In the order in which a reader types them, in one directory.
#[test]
fn commands_work_or_are_those_of_ci() {
    let ci = read("../.ci/run");
    let dir = tempfile::tempdir().unwrap();
    let mut commands = 0;
    for command in blocks("sh").iter().flat_map(|block| block.lines()) {
        commands += 1;
        if command.starts_with("vm-metrics serve ") {
            serves(command, &dir);
        } else if command.starts_with("vm-metrics ") {
            let output = shell(command, &dir).output().unwrap();
            assert!(output.status.success(), "{command}: {}", stderr(&output));
        } else {
            assert!(ci.lines().any(|line| line.starts_with(command)), "nobody tests `{command}`");
        }
    }
    assert!(commands > 0);
}

#[test]
fn configurations_are_good() {
    let dir = tempfile::tempdir().unwrap();
    for text in blocks("toml") {
        let file = dir.path().join("readme.toml");
        fs::write(&file, &text).unwrap();
        let output = run(&["config", "check", file.to_str().unwrap()]);
        assert!(output.status.success(), "{text}{}", stderr(&output));
    }
}

#[test]
fn metrics_exist() {
    let documented = read("../docs/metrics.md");
    let readme = readme();
    let words = readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for metric in words.filter(|word| word.starts_with("vm_") && *word != LIBRARY) {
        assert!(documented.contains(&format!("| `{metric}` |")), "{metric} is not in docs/metrics.md");
    }
}

/// On a port that is free, and without programs on the TAPs of whoever runs the tests.
fn serves(command: &str, dir: &TempDir) {
    let command = shell(&format!("exec {command} --listen 127.0.0.1:0 --no-ebpf"), dir);
    let mut daemon = Daemon::start_command(command).unwrap();
    daemon.wait_until_ready().unwrap();
    assert!(daemon.terminate().unwrap().success());
}

fn shell(command: &str, dir: &TempDir) -> Command {
    let binary = Path::new(BINARY).parent().unwrap().to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = [binary].into_iter().chain(env::split_paths(&path)).collect();
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).current_dir(dir.path()).env("PATH", env::join_paths(dirs).unwrap());
    shell
}

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let readme = readme();
    let opening = format!("\n```{language}\n");
    readme.split(&opening).skip(1).map(|part| part.split_once("\n```").unwrap().0.to_owned()).collect()
}

fn readme() -> String {
    read("../README.md")
}

fn read(file: &str) -> String {
    fs::read_to_string(tests_dir().join(file)).unwrap()
}
