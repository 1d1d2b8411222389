//! Commands for operators: status, flags, variables, configuration errors.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;

use crate::fixture::{BINARY, Fixture, run, stderr, stdout};

/// Starts a daemon with a socket for administrators of the host.
fn daemon_with_socket() -> (Fixture, PathBuf, Daemon) {
    let fixture = Fixture::new("mixed");
    let socket = fixture.dir.path().join("run/api.sock");
    let config = std::fs::read_to_string(&fixture.config).unwrap();
    std::fs::write(&fixture.config, format!("{config}[http]\nsocket = {socket:?}\n")).unwrap();
    let daemon = fixture.serve();
    (fixture, socket, daemon)
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}{}", stdout(output), stderr(output)))
}

fn api(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.get("/api/v1/vms", None).unwrap().body).unwrap()
}

/// A snapshot without the daemon would be tick 1.
#[test]
fn snapshot_asks_the_running_daemon() {
    let (fixture, socket, daemon) = daemon_with_socket();
    daemon
        .wait_for(vm_metrics_testkit::wait::SOON, "three ticks", |_| {
            (api(&daemon)["tick"].as_u64() > Some(2)).then_some(())
        })
        .unwrap();
    let output = fixture.run("snapshot", &["--json"]);
    let output_text = json(&output);
    assert!(output_text["tick"].as_u64() > Some(2), "{output_text}");
    assert_eq!(output_text["vms"], api(&daemon)["vms"], "the JSON is that of the API");
    let who =
        format!("these numbers are of the daemon at {} (process {}, user ", socket.display(), daemon.pid());
    let line = stderr(&output);
    assert!(line.starts_with(&who) && line.trim_end().ends_with(')'), "{line}");
    assert_eq!(stdout(&fixture.run("snapshot", &[])), stdout(&fixture.run("snapshot", &["--no-daemon"])));
    drop(daemon);
    let output = fixture.run("snapshot", &["--json"]);
    assert_eq!((json(&output)["tick"].as_u64(), stderr(&output)), (Some(1), String::new()));
}

#[test]
fn snapshot_watches_rates() {
    let (fixture, _, _daemon) = daemon_with_socket();
    for args in [&["--watch", "50ms"][..], &["--watch", "50ms", "--no-daemon"]] {
        let mut command = Command::new(BINARY);
        command.args(["snapshot", "--config"]).arg(&fixture.config).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines: Vec<String> =
            BufReader::new(child.stdout.take().unwrap()).lines().take(12).map(Result::unwrap).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        let heads: Vec<_> = lines.iter().filter(|line| line.starts_with("ID ")).collect();
        assert!(heads.len() > 1 && heads[0].contains("CPU %") && heads[0].contains("RX bit/s"), "{lines:?}");
        // Counters of a host made of files never change.
        assert!(lines[1..].iter().any(|line| line.contains("  0.0  ")), "{lines:?}");
    }
}

#[test]
fn doctor_reports_on_the_running_daemon() {
    let (fixture, socket, daemon) = daemon_with_socket();
    let report = json(&fixture.run("doctor", &["--json"]));
    let first = &report["checks"][0];
    assert_eq!((&first["name"], &first["result"]), (&"running daemon".into(), &"good".into()));
    let detail = first["detail"].as_str().unwrap();
    for wording in [
        format!("process {}, user ", daemon.pid()),
        format!("version {}", env!("CARGO_PKG_VERSION")),
        socket.display().to_string(),
    ] {
        assert!(detail.contains(&wording), "{detail}");
    }
    drop(daemon);
    let report = json(&fixture.run("doctor", &["--json"]));
    assert_eq!(report["checks"][0]["result"], "absent");
    assert!(report["checks"][0]["remedy"].as_str().unwrap().contains("systemd-run"), "{report}");
}

#[test]
fn doctor_is_a_list_of_signs() {
    let fixture = Fixture::new("mixed");
    let doctor = |locale: &str| {
        let mut command = Command::new(BINARY);
        command.args(["doctor", "--config"]).arg(&fixture.config).env("LC_ALL", locale);
        stdout(&command.output().unwrap())
    };
    let utf8 = doctor("C.UTF-8");
    assert!(utf8.lines().any(|line| line.starts_with("✓ source proc_scan")), "{utf8}");
    assert!(utf8.lines().any(|line| line.starts_with("– source libvirt")), "{utf8}");
    assert!(!utf8.contains('\u{1b}'), "no colours but on a terminal: {utf8}");
    let ascii = doctor("C");
    assert!(ascii.lines().any(|line| line.starts_with("ok source proc_scan")), "{ascii}");
}

#[test]
fn strict_fails_when_a_requested_component_is_off() {
    let good = Fixture::with("empty", "", "[readers.tap_ebpf]\nenabled = false");
    assert_eq!(
        good.run("doctor", &["--strict"]).status.code(),
        Some(0),
        "{}",
        stdout(&good.run("doctor", &[]))
    );
    let bad = Fixture::with("empty", "", "[sources.vm_dir]\nenabled = true\ndir = \"/no/such\"");
    assert_eq!(bad.run("doctor", &[]).status.code(), Some(0));
    let output = bad.run("doctor", &["--strict"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("source vm_dir") && stderr(&output).contains("of the checks fail"));
}

#[test]
fn version_distinguishes_builds() {
    let version = stdout(&run(&["--version"]));
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("\ncommit: "), "{version}");
    let ebpf = if cfg!(feature = "ebpf") { "\neBPF: yes; " } else { "\neBPF: no " };
    assert!(version.contains(ebpf), "{version}");
}

/// Each error has its line and an example.
#[test]
fn all_mistakes_are_reported_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "interval = 1\nintervall = \"2s\"\n[reader]\n[readers.proc_sat]\n[readers.tap_ebpf]\nmax_nics = 0\n\
                pinn = true\nattach = \"xdp\"\n[sources.static_list]\nvms = [{ id = 1 }, { id = \"b\", vcpu = 2 }]\n";
    std::fs::write(&file, text).unwrap();
    let path = file.path().to_str().unwrap();
    let output = run(&["config", "check", path]);
    let output_text = stderr(&output);
    assert_eq!(output.status.code(), Some(64), "{output_text}");
    for (line, wording) in [
        (1, "interval = \"1s\""),
        (2, "did you mean `interval`?"),
        (3, "did you mean `readers`?"),
        (4, "did you mean [readers.proc_stat]?"),
        (6, "max_nics: 0 is not between 1 and 65536; for example max_nics = 1024"),
        (7, "did you mean `pin`?"),
        (8, "must be one of \"auto\", \"tcx\", \"clsact\""),
        (10, "must be text in double quotes, not a whole number"),
        (10, "did you mean `vcpus`?"),
    ] {
        let place = format!("{path}:{line}: ");
        assert!(
            output_text
                .lines()
                .any(|output_text| output_text.contains(&place) && output_text.contains(wording)),
            "{line} {wording}: {output_text}"
        );
    }
    assert_eq!(output_text.lines().count(), 9, "and no other: {output_text}");
}

fn with_variables(fixture: &Fixture, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--config").arg(&fixture.config).envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn flags_override_variables_and_variables_the_file() {
    let fixture = Fixture::with("empty", "interval = \"soon\"", "[readers.tap_ebpf]\nmax_nics = 0");
    let config = fixture.config.to_str().unwrap();
    let mut check = Command::new(BINARY);
    check.args(["config", "check", config]).envs([
        ("VM_METRICS_INTERVAL", "2s"),
        ("VM_METRICS_READERS__TAP_EBPF__MAX_NICS", "7"),
        ("VM_METRICS_HTTP__HOSTS", "[\"metrics.example\"]"),
    ]);
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("interval: replaced by the variable VM_METRICS_INTERVAL\n"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let fixture = Fixture::new("empty");
    let variables = [("VM_METRICS_LISTEN", address.as_str())];
    let serve =
        |args: &[&str]| with_variables(&fixture, &[&["serve", "--no-ebpf"], args].concat(), &variables);
    assert!(stderr(&serve(&[])).contains(&address), "the variable counts");
    let other = "192.0.2.1:1";
    let output_text = stderr(&serve(&["--listen", other]));
    assert!(output_text.contains(other) && !output_text.contains(&address), "the flag counts: {output_text}");
}

#[test]
fn a_wrong_variable_is_named() {
    let fixture = Fixture::new("empty");
    let variables = [("VM_METRICS_INTERVAL", "soon"), ("VM_METRICS_LOG__FORMAT", "xml")];
    let output = with_variables(&fixture, &["serve"], &variables);
    assert_eq!(output.status.code(), Some(64));
    let output_text = stderr(&output);
    for wording in [
        "variable VM_METRICS_INTERVAL: interval: this is not a duration",
        "variable VM_METRICS_LOG__FORMAT: must be \"text\" or \"json\"",
    ] {
        assert!(output_text.contains(wording), "{output_text}");
    }
    // Kubernetes makes such a variable for a service of this name.
    let variables = [("VM_METRICS_PORT", "tcp://10.0.0.1"), ("VM_METRICS_INTERVALL", "1s")];
    let output = with_variables(&fixture, &["detach"], &variables);
    let output_text = stderr(&output);
    assert!(output_text.contains("WARN the variable VM_METRICS_PORT stands for no key"), "{output_text}");
    assert!(
        output_text.contains("VM_METRICS_INTERVALL stands for no key; did you mean VM_METRICS_INTERVAL?"),
        "{output_text}"
    );
}

#[test]
fn flag_and_key_select_the_json_log() {
    let by_key = Fixture::with("empty", "", "[log]\nformat = \"json\"\nlevel = \"debug\"");
    for (fixture, args) in
        [(Fixture::new("empty"), &["--log-format", "json", "--log-level", "debug"][..]), (by_key, &[])]
    {
        let output = fixture.run("serve", &[&["--listen", "192.0.2.1:1"], args].concat());
        let output_text = stderr(&output);
        let events: Vec<Value> =
            output_text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = events.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{output_text}");
        assert!(last["message"].as_str().unwrap().contains("cannot listen on 192.0.2.1:1"), "{output_text}");
    }
}

/// The log lists all absent components in one line at the start.
#[test]
fn absent_components_take_one_line() {
    let daemon = Fixture::new("mixed").serve();
    daemon.metrics().unwrap();
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("not here, or switched off: ")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for source in ["static_list", "vm_dir", "libvirt", "hypeman"] {
        assert!(lines[0].contains(source), "{log}");
        assert!(!log.contains(&format!("source {source} is off")), "{log}");
    }
}

#[cfg(feature = "ebpf")]
#[test]
fn detach_names_its_cause_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let pins = file.path().join("below/pins");
    let fixture = Fixture::with("empty", "", &format!("[readers.tap_ebpf]\npin_dir = {pins:?}"));
    let output = fixture.run("detach", &[]);
    assert_eq!(output.status.code(), Some(1));
    let output_text = stderr(&output);
    assert_eq!(output_text.matches("is no directory").count(), 1, "{output_text}");
}
