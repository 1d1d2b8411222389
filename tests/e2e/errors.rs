//! Access to source errors, which name paths and quote files.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;

use crate::fixture::{Fixture, stdout};
use crate::push::request;

/// A file whose path an error names.
const FILE: &str = "/no/such/directory/secret.pid";

/// Makes a host with a failing source, and returns it with the path of the API socket.
fn host_with_a_problem(http: &str) -> (Fixture, PathBuf) {
    let fixture = Fixture::new("mixed");
    let socket = fixture.dir.path().join("run/api.sock");
    let tables = format!(
        "[http]\nsocket = {socket:?}\n{http}\n[[sources.static_list.vms]]\nid = \"a\"\npid_file = {FILE:?}\n"
    );
    let config = std::fs::read_to_string(&fixture.config).unwrap();
    std::fs::write(&fixture.config, config + &tables).unwrap();
    (fixture, socket)
}

const PATHS: [&str; 5] = ["/api/v1/health", "/api/v1/sources", "/metrics", "/-/healthy", "/api/v1/vms"];

fn static_list(health: &str) -> Value {
    let health: Value = serde_json::from_str(health).unwrap();
    let parts = health["parts"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == "static_list").unwrap().clone()
}

fn over_tcp(daemon: &Daemon, path: &str) -> String {
    daemon.get(path, None).unwrap().text().unwrap().to_owned()
}

#[test]
fn errors_show_on_socket_and_doctor_only() {
    let (fixture, socket) = host_with_a_problem("");
    let daemon = fixture.serve();
    for path in PATHS {
        assert!(!over_tcp(&daemon, path).contains("secret"), "{path}");
    }
    let public = static_list(&over_tcp(&daemon, "/api/v1/health"));
    let expected = "1 problem: `vm-metrics doctor` or the API on the Unix socket lists it";
    assert_eq!((&public["reason"], &public["errno"]), (&expected.into(), &Value::Null));

    let (status, _, health) = request(&socket, "GET", "/api/v1/health", "");
    let full = static_list(&health);
    assert!(status == 200 && full["reason"].as_str().unwrap().contains(FILE), "{full}");
    assert_eq!((&full["state"], &full["errors"]), (&public["state"], &public["errors"]));
    assert_eq!(request(&socket, "GET", "/metrics", "").0, 200);
    assert!(stdout(&fixture.run("doctor", &[])).contains(FILE));
}

#[test]
fn a_key_shows_errors_over_tcp() {
    let (fixture, _) = host_with_a_problem("show_errors = true");
    let daemon = fixture.serve();
    assert!(over_tcp(&daemon, "/api/v1/health").contains(FILE));
}

#[test]
fn the_socket_is_for_the_daemons_user_only() {
    let (fixture, socket) = host_with_a_problem("");
    let _daemon = fixture.serve();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = fixture.run("serve", &["--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1), "a socket that is asked for must be possible");
}
