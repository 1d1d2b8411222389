//! Addresses of the server: several at once, Unix sockets, addresses in use.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::http;

use crate::fixture::{BINARY, Fixture, stderr};
use crate::push::request;

fn start(fixture: &Fixture, listen: &[&str]) -> Daemon {
    let config = fixture.config.to_str().unwrap();
    let flags = listen.iter().flat_map(|address| ["--listen", address]);
    let args: Vec<&str> = ["--no-ebpf", "--config", config].into_iter().chain(flags).collect();
    Daemon::start(Path::new(BINARY), &args).unwrap()
}

/// Returns the addresses in the log.
fn named(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let (_, after) = log.split_once("listening on ").unwrap();
    let (names, _) = after.split_once(", a tick").unwrap();
    names.split(", ").map(str::to_owned).collect()
}

fn tcp(name: &str) -> SocketAddr {
    name.strip_prefix("http://").unwrap().parse().unwrap()
}

#[test]
fn every_address_answers_and_is_in_the_log() {
    let fixture = Fixture::new("mixed");
    let socket = fixture.dir.path().join("run/metrics.sock");
    let unix = format!("unix:{}", socket.display());
    let mut daemon = start(&fixture, &["[::1]:0,localhost:0", &unix]);
    let names = named(&daemon);
    assert_eq!((names.len(), names.last()), (5, Some(&unix)), "{names:?}");
    for name in &names[..4] {
        let answer = http::get(tcp(name), "/metrics", None).unwrap();
        assert_eq!(answer.status, 200, "{name}");
    }
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let (status, _, text) = request(&socket, "GET", "/metrics", "");
    assert!(status == 200 && text.contains("vm_info{"), "{text}");
    assert_eq!(daemon.terminate().unwrap().code(), Some(0));
    assert!(!socket.exists(), "removed at the end");
}

/// The right to read metrics does not include the right to read errors.
#[test]
fn a_public_socket_shows_the_same_as_tcp() {
    let fixture = Fixture::copy_of("mixed");
    fs::remove_file(fixture.proc().join("4242/statm")).unwrap();
    fs::create_dir(fixture.proc().join("4242/statm")).unwrap();
    let socket = fixture.dir.path().join("run/metrics.sock");
    let _daemon = start(&fixture, &[&format!("unix:{}", socket.display())]);
    let (status, _, health) = request(&socket, "GET", "/api/v1/health", "");
    let health: Value = serde_json::from_str(&health).unwrap();
    let part = health["parts"].as_array().unwrap().iter().find(|part| part["name"] == "proc_statm").unwrap();
    assert_eq!(
        (status, part["reason"].as_str().unwrap().split(':').next()),
        (200, Some("1 problem")),
        "{part}"
    );
    assert_eq!(request(&socket, "PUT", "/api/v1/instances/a", "{}").0, 404, "this socket accepts no push");
}

#[test]
fn the_file_may_have_one_address_or_several() {
    let fixture = Fixture::with("empty", "listen = [\"127.0.0.1:0\", \"[::1]:0\"]", "");
    let mut command = Command::new(BINARY);
    command.args(["serve", "--no-ebpf", "--config"]).arg(&fixture.config);
    let daemon = Daemon::start_command(command).unwrap();
    assert_eq!(named(&daemon).len(), 2);
    let output = fixture.run("doctor", &[]);
    let report = String::from_utf8(output.stdout).unwrap();
    for address in ["listen 127.0.0.1:0", "listen [::1]:0"] {
        let line = report.lines().find(|line| line.contains(address)).unwrap_or_else(|| panic!("{report}"));
        assert!(line.contains("free (") && line.ends_with("config.toml:1, key listen)"), "{line}");
    }
}

/// The message has the place in the configuration, the process that listens there, and the remedy.
#[test]
fn an_address_in_use_names_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let process = format!("process {} (", std::process::id());
    let output = Fixture::new("empty").run("serve", &["--no-ebpf", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("cannot listen on {address} (flag --listen): {process}");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(stderr(&output).contains("stop it, or choose another address"), "{}", stderr(&output));

    let fixture = Fixture::with("empty", &format!("listen = \"{address}\""), "");
    let output = fixture.run("serve", &["--no-ebpf"]);
    let error = stderr(&output);
    assert!(error.contains("config.toml:1, key listen)") && error.contains(&process), "{error}");
}

#[test]
fn a_socket_of_a_living_daemon_is_refused() {
    let fixture = Fixture::new("empty");
    let socket = fixture.dir.path().join("run/metrics.sock");
    let unix = format!("unix:{}", socket.display());
    let mut daemon = start(&fixture, &[&unix]);
    let output = fixture.run("serve", &["--no-ebpf", "--listen", &unix]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let process = format!("process {} (\"vm-metrics\") listens there", daemon.pid());
    assert!(error.contains(&unix) && error.contains(&process), "{error}");

    daemon.kill().unwrap();
    assert!(socket.exists(), "no user could remove it");
    let _next = start(&fixture, &[&unix]);
    assert_eq!(request(&socket, "GET", "/-/healthy", "").0, 200);
}

#[test]
fn a_file_at_the_socket_path_stays() {
    let fixture = Fixture::new("empty");
    let file = fixture.dir.path().join("notes");
    fs::write(&file, "kept").unwrap();
    let output = fixture.run("serve", &["--no-ebpf", "--listen", &format!("unix:{}", file.display())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is no socket: remove it, or choose another path"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

/// Each address has as many silent connections as all of them may have together.
#[test]
fn all_addresses_share_one_limit_of_connections() {
    let fixture = Fixture::new("mixed");
    let socket = fixture.dir.path().join("run/metrics.sock");
    let daemon = start(&fixture, &["127.0.0.1:0", "[::1]:0", &format!("unix:{}", socket.display())]);
    let names = named(&daemon);
    let files = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = files();
    let tcp: Vec<TcpStream> = (0..192).map(|at| TcpStream::connect(tcp(&names[at % 3])).unwrap()).collect();
    let unix: Vec<UnixStream> = (0..64).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    daemon.metrics().unwrap();
    assert_eq!(request(&socket, "GET", "/-/healthy", "").0, 200);
    assert!(files() <= before + 64, "{} files, before {before}", files());
    drop((tcp, unix));
}
