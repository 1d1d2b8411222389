//! Orchestrators push VMs over a Unix socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::{SOON, scaled};

use crate::api::{Body, faults};
use crate::fixture::{Fixture, stderr};

/// A directory for the socket, and a daemon on an empty host. It ticks almost only after a push.
struct Lab {
    dir: TempDir,
    fixture: Fixture,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/push.sock");
        let push = format!("[sources.push]\nenabled = true\nsocket = {socket:?}");
        let fixture = Fixture::with("empty", "interval = \"1h\"", &push);
        Self { dir, fixture }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/push.sock")
    }

    /// Returns status, content type and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        request(&self.socket(), method, path, body)
    }
}

/// The path in the API description.
const INSTANCE: &str = "/instances/{id}";

pub(crate) fn request(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(scaled(SOON))).unwrap();
    // One write: the daemon may answer a head without its body, and close.
    let text = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let header = |line: &str| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned);
    let kind = head.lines().find_map(header).unwrap_or_default();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), kind, body.to_owned())
}

/// Waits until the running VMs have these names.
fn wait_for_names(daemon: &Daemon, wanted: &[&str]) {
    let names = |metrics: &Metrics| -> Vec<String> {
        let up = metrics.samples("vm_running").filter(|sample| sample.value == 1.0);
        up.map(|sample| sample.label("instance_name").unwrap().to_owned()).collect()
    };
    daemon
        .wait_for(SOON, &format!("{wanted:?}"), |metrics| (names(metrics) == wanted).then_some(()))
        .unwrap();
}

/// The daemon publishes the VM at once, keeps it over a restart, and ends it after the deletion.
#[test]
fn a_pushed_vm_lives_until_its_deletion() {
    let lab = Lab::new();
    let mut daemon = lab.fixture.serve();
    assert_eq!(fs::metadata(lab.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let vm = r#"{"name": "web", "taps": ["vmpush0"], "vcpus": 2, "project": "acme"}"#;
    assert_eq!(faults(INSTANCE, "put", Body::Request, &serde_json::from_str(vm).unwrap()), [""; 0]);
    assert_eq!(lab.ask("PUT", "/api/v1/instances/01234567", vm).0, 201);
    wait_for_names(&daemon, &["web"]);
    let metrics = daemon.metrics().unwrap();
    let labels = [("instance_id", "01234567"), ("project", "acme")];
    assert_eq!(metrics.value("vm_info", &labels), Some(1.0));
    assert_eq!(metrics.value("vm_allocated_vcpus", &[]), Some(2.0));
    assert_eq!(lab.ask("PUT", "/api/v1/instances/01234567", &vm.replace("web", "www")).0, 204);
    wait_for_names(&daemon, &["www"]);

    daemon.kill().unwrap();
    // The killed daemon left its socket.
    assert!(lab.socket().exists());
    let daemon = lab.fixture.serve();
    wait_for_names(&daemon, &["www"]);
    assert_eq!(lab.ask("DELETE", "/api/v1/instances/01234567", "").0, 204);
    wait_for_names(&daemon, &[]);
}

/// The response is a problem document with the reason.
#[test]
fn a_bad_request_changes_nothing() {
    let lab = Lab::new();
    let daemon = lab.fixture.serve();
    assert_eq!(lab.ask("PUT", "/api/v1/instances/a", "{}").0, 201);
    wait_for_names(&daemon, &["a"]);
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(64 << 10));
    for (method, path, body, status, wording) in [
        ("PUT", "/api/v1/instances/a", "{", 400, "EOF while parsing"),
        ("PUT", "/api/v1/instances/a", "{\"tap\": 1}", 400, "unknown field `tap`"),
        ("PUT", "/api/v1/instances/a", "{\"id\": \"b\"}", 400, "the path of \\\"a\\\""),
        ("PUT", "/api/v1/instances/a", &huge, 413, "at most 65536 bytes"),
        ("PUT", "/api/v1/instances/%ff", "{}", 400, "UTF-8"),
        ("DELETE", "/api/v1/instances/%ff", "", 400, "UTF-8"),
        ("DELETE", "/api/v1/instances/b", "", 404, "no VM is pushed under the id \\\"b\\\""),
        ("GET", "/api/v1/instances/a", "", 405, "PUT or DELETE"),
        ("GET", "/metrics", "", 404, "only /api/v1/instances/{id}"),
    ] {
        let (got, kind, answer) = lab.ask(method, path, body);
        assert_eq!((got, kind.as_str()), (status, "application/problem+json"), "{method} {path}: {answer}");
        assert!(answer.contains(wording), "{method} {path}: {answer}");
        let operation = method.to_lowercase();
        if ["put", "delete"].contains(&operation.as_str()) {
            let answer = serde_json::from_str(&answer).unwrap();
            assert_eq!(faults(INSTANCE, &operation, Body::Answer(status), &answer), [""; 0], "{answer}");
        }
    }
    let unknown = serde_json::json!({"tap": 1});
    assert_ne!(
        faults(INSTANCE, "put", Body::Request, &unknown),
        [""; 0],
        "a field that is refused is described"
    );
    assert_eq!(lab.ask("PUT", "/api/v1/instances/z", "{}").0, 201);
    wait_for_names(&daemon, &["a", "z"]);
}

#[test]
fn a_running_daemon_keeps_its_socket() {
    let lab = Lab::new();
    let daemon = lab.fixture.serve();
    let second = lab.fixture.run("serve", &["--listen", "127.0.0.1:0", "--no-ebpf"]);
    assert_eq!(second.status.code(), Some(1));
    let error = stderr(&second);
    let process = format!("push.sock (key socket of [sources.push]): process {} (", daemon.pid());
    assert!(error.contains(&process), "{error}");
    assert_eq!(lab.ask("PUT", "/api/v1/instances/a", "{}").0, 201);
    wait_for_names(&daemon, &["a"]);
}

/// The QEMU process on the host `mixed`.
const WEB: &str = "6f1b3a7e-0000-4000-8000-000000000001";

/// Makes a host with VMs. Tests push further ones.
fn with_vms() -> (Fixture, PathBuf) {
    let fixture = Fixture::copy_of("mixed");
    let socket = fixture.dir.path().join("run/push.sock");
    let config = fs::read_to_string(&fixture.config).unwrap();
    fs::write(&fixture.config, format!("{config}[sources.push]\nenabled = true\nsocket = {socket:?}\n"))
        .unwrap();
    (fixture, socket)
}

fn two_ticks(daemon: &Daemon) {
    let ticks = |metrics: &Metrics| metrics.value("vm_exporter_ticks_total", &[]);
    let before = ticks(&daemon.metrics().unwrap()).unwrap();
    daemon.wait_for(SOON, "two ticks", |metrics| ticks(metrics).filter(|now| *now >= before + 2.0)).unwrap();
}

/// The new process has another pid, which arrives a little later.
#[test]
fn a_restarted_vm_keeps_id_and_name() {
    let (fixture, socket) = with_vms();
    let daemon = fixture.serve();
    let put = |pid: u32| {
        let body = format!("{{\"name\": \"shop\", \"pid\": {pid}}}");
        request(&socket, "PUT", &format!("/api/v1/instances/{WEB}"), &body).0
    };
    let wait_for_pid = |pid: u32| {
        let pid = pid.to_string();
        let labels = [("pid", pid.as_str()), ("instance_id", WEB), ("instance_name", "shop")];
        let is_up = |metrics: &Metrics| metrics.value("vm_info", &labels);
        daemon.wait_for(SOON, &format!("{WEB} with process {pid}"), is_up).unwrap();
        let metrics = daemon.metrics().unwrap();
        let ids: Vec<_> = metrics.samples("vm_running").filter_map(|vm| vm.label("instance_id")).collect();
        assert_eq!(ids.iter().filter(|id| id.starts_with(WEB)).collect::<Vec<_>>(), [&WEB]);
    };
    assert_eq!(put(4242), 201);
    wait_for_pid(4242);
    fs::rename(fixture.proc().join("4242"), fixture.proc().join("5001")).unwrap();
    let stat = fixture.proc().join("5001/stat");
    fs::write(&stat, fs::read_to_string(&stat).unwrap().replace(" 90000 ", " 95000 ")).unwrap();
    wait_for_pid(5001);
    assert_eq!(put(5001), 204);
    two_ticks(&daemon);
    wait_for_pid(5001);
}

#[test]
fn the_taps_belong_to_their_current_vm() {
    let (fixture, socket) = with_vms();
    fs::write(fixture.dir.path().join("host/sys/class/net/vnet0/tun_flags"), "0x1002\n").unwrap();
    let daemon = fixture.serve();
    for process in ["\"pid\": 99999", "\"pid_file\": \"/none/vm.pid\""] {
        let body = format!("{{{process}, \"taps\": [\"vnet0\"]}}");
        request(&socket, "PUT", "/api/v1/instances/old", &body);
        two_ticks(&daemon);
        let metrics = daemon.metrics().unwrap();
        let ids: Vec<_> = metrics.samples("vm_running").filter_map(|vm| vm.label("instance_id")).collect();
        assert!(ids.len() == 3 && !ids.contains(&"old"), "{process}: {ids:?}");
        let vm = daemon.get(&format!("/api/v1/vms/{WEB}"), None).unwrap();
        let vm: Value = serde_json::from_slice(&vm.body).unwrap();
        let nics: Vec<_> = vm["nics"].as_array().unwrap().iter().map(|nic| &nic["device"]).collect();
        assert_eq!(nics, ["vnet0", "vnet1"], "{process}");
    }
}
