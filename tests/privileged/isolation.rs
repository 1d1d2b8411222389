//! Runs a test in its own process and pid namespace.

use std::env;
use std::io::{self, Write};
use std::process::Command;

/// Prefix of measured figures. `cargo xtask test` repeats these lines at its end.
const FIGURES: &str = "figures: ";

const INSIDE: &str = "TESTKIT_ISOLATED";

/// Prints a figure that a test measured.
pub(crate) fn figures(text: &str) {
    // The test harness captures println!.
    io::stdout().write_all(format!("{FIGURES}{text}\n").as_bytes()).unwrap();
}

/// Runs `body` in a new process, whose `/proc` shows only its own children. `test` is the path of the calling test.
pub(crate) fn isolated(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    vm_metrics_testkit::child::die_with_parent(&mut command);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    message.lines().filter_map(|line| line.strip_prefix(FIGURES)).for_each(figures);
    let failed = !output.status.success() || !message.contains("1 passed");
    assert!(!failed, "{}\n{message}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}
