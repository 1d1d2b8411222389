//! Foreign names and paths reach terminal and log without control characters.

use std::process::Output;

use crate::fixture::{Fixture, stderr, stdout};

/// TOML text that would clear the screen and forge a log line.
const EVIL: &str = r"\u001b[2J\u009b2J\r\nERROR forged\u202e";

const SHOWN: &str = r"\u{1b}[2J\u{9b}2J\r\nERROR forged\u{202e}";

fn fixture() -> Fixture {
    let vms = format!(
        "[sources.static_list]\nvms = [\n{{ id = \"a{EVIL}\", name = \"b{EVIL}\", pid = 4242 }},\n\
         {{ id = \"c\", pid_file = \"/no/such/{EVIL}\" }}]\n"
    );
    Fixture::with("mixed", "", &vms)
}

fn assert_harmless(text: &str) {
    for line in text.lines() {
        assert!(!line.starts_with("ERROR forged"), "{text}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
    assert!(text.contains("ERROR forged"), "the name is not shown at all: {text}");
}

fn all_of(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

#[test]
fn the_log_has_one_line_per_event() {
    let daemon = fixture().serve();
    daemon.metrics().unwrap();
    let log = daemon.log();
    assert_harmless(&log);
    assert!(log.contains(SHOWN), "{log}");
}

#[test]
fn commands_print_no_control_characters() {
    let fixture = fixture();
    for (command, args) in [("doctor", &[][..]), ("snapshot", &[]), ("snapshot", &["--json"])] {
        assert_harmless(&all_of(&fixture.run(command, args)));
    }
    let json = stdout(&fixture.run("snapshot", &["--json"]));
    let vms: serde_json::Value = serde_json::from_str(&json).unwrap();
    let name = "b\u{1b}[2J\u{9b}2J\r\nERROR forged\u{202e}";
    assert!(
        vms["vms"].as_array().unwrap().iter().any(|vm| vm["instance_name"] == name),
        "values stay: {json}"
    );
}
