//! Tests that find that they cannot run here, or not all of it, and say so.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

/// The file that collects what was not tested, a line `name<TAB>reason` each: see `xtask/src/test`.
pub const SKIP_LOG: &str = "TESTKIT_SKIP_LOG";

/// To be called by the test itself, which then returns.
pub fn skip(reason: &str) {
    log(&test_name(), reason);
}

/// Of a test that goes on with the rest. The space in the name tells this from a whole test.
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
    // Several tests write at once: one write is one line.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("append to {}: {error}", path.display()));
}
