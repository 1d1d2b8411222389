//! Verifies the commands, configurations and metrics in README.md.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;

use crate::fixture::{BINARY, run, stderr, tests_dir};

/// A reader needs five minutes for it.
const MAX_LINES: usize = 200;

/// The name of the library, which looks like a metric.
const LIBRARY: &str = "vm_metrics";

#[test]
fn is_short() {
    assert!(readme().lines().count() < MAX_LINES);
}

/// Runs the commands in their order, in one directory.
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
            assert!(ci.lines().any(|line| line.starts_with(command)), "no test covers `{command}`");
        }
    }
    assert!(commands > 0);
}

/// SECURITY.md names a test for each promise.
#[test]
fn tests_of_the_security_page_exist() {
    let page = read("../SECURITY.md");
    let sources = sources_in(&[tests_dir(), tests_dir().join("../vm-metrics/src")]);
    let is_test = |name: &&str| name.contains('_') && name.len() > 12 && name.bytes().all(is_of_name);
    let names: Vec<&str> = page.split('`').filter(is_test).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "SECURITY.md names `{name}`, which is no test");
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Returns all Rust code in the directories.
fn sources_in(directories: &[PathBuf]) -> String {
    let mut code = String::new();
    let mut left = directories.to_vec();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    code
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

/// Serves on a free port, and attaches no programs to the TAPs of this machine.
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

/// Returns the code blocks in a language.
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
