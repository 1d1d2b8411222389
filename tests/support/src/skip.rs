//! Reports tests that cannot run on this machine, wholly or in part.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

/// The variable with the log of skips, a line `name<TAB>reason` each: see `xtask/src/test`.
pub const SKIP_LOG: &str = "TESTKIT_SKIP_LOG";

/// Logs a skip. The test itself calls it and returns.
pub fn skip(reason: &str) {
    log(&test_name(), reason);
}

/// Logs a skipped part of a test that continues. The space in the name marks a part.
pub fn skip_part(part: &str, reason: &str) {
    log(&format!("{} {part}", test_name()), reason);
}

/// libtest names the thread after the test, unless all tests run on the main thread.
fn test_name() -> String {
    thread::current().name().unwrap_or("?").to_owned()
}

fn log(name: &str, reason: &str) {
    eprintln!("skipped: {name}: {reason}");
    let Some(path) = env::var_os(SKIP_LOG) else { return };
    let line = format!("{name}\t{}\n", reason.replace('\n', " "));
    let file = OpenOptions::new().append(true).create(true).open(&path);
    // Several tests may write at once, and one write is one line.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("append to {}: {error}", path.display()));
}
