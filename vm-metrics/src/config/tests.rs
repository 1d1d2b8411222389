//! Defaults, refusals and trust of a whole configuration.

use super::*;

fn refused(text: &str) -> String {
    Config::parse(Path::new("test.toml"), text).expect_err("must be refused").to_string()
}

#[test]
fn the_printed_default_is_the_default() {
    let mut printed = Config::parse(Path::new("default.toml"), DEFAULT).expect("default.toml").settings;
    let builtin = Config::builtin().expect("built-in").settings;
    assert_eq!(printed.listen.addresses(), builtin.listen.addresses());
    // The two stand at different places.
    printed.listen = builtin.listen.clone();
    assert_eq!(printed, builtin);
}

#[test]
fn a_refusal_names_file_line_and_key() {
    for (text, expected) in [
        ("interval = \"1s\"\nintervall = \"2s\"\n", ["test.toml:2", "intervall"]),
        ("interval = \"soon\"\n", ["test.toml:1", "interval"]),
        ("\ninterval = \"1ms\"\n", ["test.toml:2", "interval: must be between 10ms and 1h"]),
        ("retention = \"2d\"\n", ["test.toml:1", "retention: must be between 0s and 1day"]),
        ("metric_prefix = \"9vm\"\n", ["test.toml:1", "metric_prefix"]),
        ("metric_prefix = \"process\"\n", ["test.toml:1", "metric_prefix: \"process\": process_ begins"]),
        ("metric_prefix = \"vm_\"\n", ["test.toml:1", "metric_prefix: \"vm_\" ends with _"]),
        ("metric_prefix = \"go\"\n", ["test.toml:1", "go_ begins the names"]),
        ("metric_prefix = \"vm_exporter_build\"\n", ["test.toml:1", "vm_exporter_ begins"]),
        ("[host]\nprocfs = \"/x\"\n", ["test.toml:2", "procfs"]),
        (
            "[trust]\nusers = [\n\"root\", \"no-such-user\"]\n",
            ["test.toml:3", "trust.users: this host has no user"],
        ),
        ("[trust]\nuids = [-1]\n", ["test.toml:2", "uids"]),
        ("interval = 1\n", ["test.toml:1", "interval"]),
        ("interval = \n", ["test.toml:1", ""]),
    ] {
        let error = refused(text);
        for part in expected {
            assert!(error.contains(part), "{text:?} gives {error:?} without {part:?}");
        }
    }
}

#[test]
fn users_are_trusted_by_name_or_number() {
    let trust = |text: &str| Config::parse(Path::new("test.toml"), text).expect("good").settings.trust;
    assert_eq!(trust(""), Trust::default());
    assert_eq!(trust("[trust]\nusers = [\"root\"]\nuids = [64055]"), Trust::only([0, 64055]));
    assert_eq!(trust("[trust]\nusers = []"), Trust::only([]));
}

#[test]
fn a_prefix_may_resemble_the_daemons_own() {
    for prefix in ["vm", "vm_metric", "vm_metricsx", "processes", "hypeman_vm", "gold"] {
        assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
    }
}

#[test]
fn a_key_given_twice_is_named_once() {
    let error = refused("interval = \"1s\"\ninterval = \"2s\"\n");
    assert_eq!(error, "test.toml:2: the key `interval` is there twice");
}
