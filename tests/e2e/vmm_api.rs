//! The daemon asks VMMs over API sockets in their own roots.

mod faults;

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::{SOON, wait_until};

use self::faults::{Behaviour, FAULTS, Fault, OK};
use crate::fixture::Fixture;

/// Makes a host whose VMMs and sockets belong to the user of the test.
fn own_vmms() -> Fixture {
    let fixture = Fixture::copy_of("mixed");
    let own = fs::metadata(fixture.proc()).unwrap();
    let ids = |name: &str, id: u32| format!("{name}:\t{id}\t{id}\t{id}\t{id}");
    for pid in [4300, 4400] {
        let path = fixture.proc().join(format!("{pid}/status"));
        let status = fs::read_to_string(&path).unwrap();
        let status = status.replace(&ids("Uid", 107), &ids("Uid", own.uid()));
        fs::write(path, status.replace(&ids("Gid", 107), &ids("Gid", own.gid()))).unwrap();
    }
    fixture
}

/// Responds like Firecracker's server.
fn stand_in_of_firecracker(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            while let Some(Ok(line)) = lines.next() {
                let body = match line.as_str() {
                    "GET / HTTP/1.1" => {
                        r#"{"id":"fc-1","state":"Running","vmm_version":"1.13.0","app_name":"Firecracker"}"#
                    }
                    "GET /vm/config HTTP/1.1" => {
                        r#"{"machine-config":{"vcpu_count":8,"mem_size_mib":2048},"network-interfaces":[]}"#
                    }
                    _ => continue,
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        }
    });
}

/// A second Firecracker never responds and must delay nothing.
#[test]
fn firecracker_is_asked_inside_its_chroot() {
    let fixture = own_vmms();
    let listen = |pid: u32, socket: &str| {
        let directory = fixture.proc().join(format!("{pid}/root/run"));
        fs::create_dir_all(&directory).unwrap();
        UnixListener::bind(directory.join(socket)).unwrap()
    };
    stand_in_of_firecracker(listen(4300, "fc-1.sock"));
    let _hangs = listen(4400, "db.sock");
    let daemon = fixture.serve();
    let vm = |metrics: &Metrics, name: &str, hypervisor: &str| {
        let info = metrics.samples("vm_info").find(|vm| vm.label("hypervisor") == Some(hypervisor))?;
        metrics.value(name, &[("instance_id", info.label("instance_id")?)])
    };
    let asked = |metrics: &_| vm(metrics, "vm_allocated_vcpus", "firecracker").filter(|vcpus| *vcpus == 8.0);
    daemon.wait_for(SOON, "the response of Firecracker", asked).unwrap();
    let metrics = daemon.metrics().unwrap();
    assert_eq!(vm(&metrics, "vm_allocated_memory_bytes", "firecracker"), Some(2_147_483_648.0));
    // By its command line.
    assert_eq!(vm(&metrics, "vm_allocated_vcpus", "cloud-hypervisor"), Some(2.0));
    let health = |state| {
        let labels = [("kind", "source"), ("component", "cloud_hypervisor"), ("state", state)];
        daemon.wait_for(SOON, "the health", |metrics| metrics.value("vm_exporter_component_health", &labels))
    };
    assert_eq!(health("degraded").unwrap(), 1.0);
    let log = daemon.log();
    let problem = "process 4400: its API socket: no answer within 200 ms: it is busy or hangs";
    assert!(log.contains(problem), "{log}");
}

/// Listens on the socket and treats all clients alike. If `is_asked`, it waits for their request first.
fn behave(socket: &Path, is_asked: bool, behaviour: Behaviour) {
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let answer = move |stream: &mut UnixStream| {
        let has_come = !is_asked || stream.read(&mut [0; 1024])? > 0;
        if has_come { behaviour(stream) } else { Ok(()) }
    };
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The daemon may close the connection early.
            thread::spawn(move || drop(answer(&mut stream)));
        }
    });
}

/// Responds like Cloud Hypervisor's server.
fn paused(stream: &mut UnixStream) -> io::Result<()> {
    let body = r#"{"config":{"cpus":{"boot_vcpus":3,"max_vcpus":4},"memory":{"size":1073741824,"hotplugged_size":null,
        "zones":null},"net":[{"tap":"ch-tap0","id":"_net0"}],"balloon":null},"state":"Paused"}"#;
    write!(stream, "{OK}Server: Cloud Hypervisor API\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One of the four is the API of a stand-in for Cloud Hypervisor.
#[test]
fn four_sources_describe_one_vm() {
    let fixture = own_vmms();
    behave(&fixture.proc().join("4400/root/run/db.sock"), true, paused);
    // The command line has the id in the path of the socket.
    let guest = fixture.dir.path().join("guests/db");
    fs::create_dir_all(&guest).unwrap();
    let record = r#"{"Id": "db", "Name": "database", "Size": 536870912, "HotplugSize": 536870912, "NetworkEnabled": true,
        "Vcpus": 4, "HypervisorPID": 4400, "SocketPath": "/run/../run/db.sock"}"#;
    fs::write(guest.join("metadata.json"), record).unwrap();
    let mut config = OpenOptions::new().append(true).open(&fixture.config).unwrap();
    write!(
        config,
        "[sources.hypeman]\ndata_dir = {:?}\n[[sources.static_list.vms]]\nid = \"db\"\nname = \"\"\nproject = \"acme\"\n",
        fixture.dir.path()
    )
    .unwrap();
    let daemon = fixture.serve();
    let state = [("instance_id", "db"), ("state", "paused")];
    let is_paused = |metrics: &Metrics| metrics.value("vm_state", &state).filter(|is| *is == 1.0);
    daemon.wait_for(SOON, "its state", is_paused).unwrap();
    let metrics = daemon.metrics().unwrap();
    let asked = metrics.value("vm_exporter_source_success", &[("source", "cloud_hypervisor")]);
    assert_eq!(asked, Some(1.0), "once, although two sources have its socket");
    let of = |name| metrics.samples(name).filter(|sample| sample.label("instance_id") == Some("db")).count();
    assert_eq!(
        (metrics.samples("vm_running").count(), of("vm_running"), of("vm_cpu_seconds_total")),
        (3, 1, 1)
    );
    let vm: Value = serde_json::from_slice(&daemon.get("/api/v1/vms/db", None).unwrap().body).unwrap();
    for (key, expected) in [
        ("project", json!("acme")),
        ("instance_name", json!("database")),
        ("hypervisor_pid", json!(4400)),
        ("hypervisor", json!("cloud-hypervisor")),
        // The orchestrator's value replaces the VMM's.
        ("allocated_vcpus", json!(4)),
        ("state", json!("paused")),
    ] {
        assert_eq!(vm[key], expected, "{key}: {vm}");
    }
    let nics: Vec<_> = vm["nics"].as_array().unwrap().iter().map(|nic| &nic["device"]).collect();
    assert_eq!(nics, ["ch-tap0"], "the device that the process has, not the one that the id suggests");
}

/// The scan is off, so nothing read the command line.
#[test]
fn the_recorded_hypeman_socket_is_asked_without_scan() {
    let fixture = own_vmms();
    behave(&fixture.proc().join("4400/root/run/db.sock"), true, paused);
    let guest = fixture.dir.path().join("guests/db");
    fs::create_dir_all(&guest).unwrap();
    let record = r#"{"Id": "db", "Vcpus": 4, "HypervisorPID": 4400, "SocketPath": "/run/db.sock"}"#;
    fs::write(guest.join("metadata.json"), record).unwrap();
    let mut config = OpenOptions::new().append(true).open(&fixture.config).unwrap();
    let data_dir = fixture.dir.path();
    write!(config, "[sources]\nproc_scan.enabled = false\nhypeman.data_dir = {data_dir:?}\n").unwrap();
    let daemon = fixture.serve();
    let state = [("instance_id", "db"), ("state", "paused")];
    let is_paused = |metrics: &Metrics| metrics.value("vm_state", &state).filter(|is| *is == 1.0);
    daemon.wait_for(SOON, "its state", is_paused).unwrap();
}

fn reason(daemon: &Daemon, source: &str) -> Option<String> {
    let answer: Value = serde_json::from_slice(&daemon.get("/api/v1/sources", None).unwrap().body).unwrap();
    let of = answer["sources"].as_array().unwrap().iter().find(|of| of["name"] == source).unwrap();
    (of["state"] == "degraded").then(|| of["reason"].as_str().unwrap().to_owned())
}

/// Some stand-ins hang, some send garbage, some send 100 MB. Health reports each of them.
#[test]
fn faulty_vmm_apis_affect_only_themselves() {
    for Fault { name, api, monitor, message } in FAULTS {
        let fixture = own_vmms();
        let socket: PathBuf = fixture.dir.path().join("monitor.sock");
        let mut config = OpenOptions::new().append(true).open(&fixture.config).unwrap();
        writeln!(config, "[http]\nshow_errors = true\n[sources.qemu_qmp]\nsockets = [{socket:?}]").unwrap();
        behave(&fixture.proc().join("4300/root/run/fc-1.sock"), true, *api);
        behave(&fixture.proc().join("4400/root/run/db.sock"), true, *api);
        behave(&socket, false, *monitor);
        let daemon = fixture.serve();
        for (source, message) in
            [("firecracker", message[0]), ("cloud_hypervisor", message[0]), ("qemu_qmp", message[1])]
        {
            let reason = || Ok(reason(&daemon, source));
            let reason = wait_until(SOON, &format!("{source}: {name}"), reason).unwrap();
            let is_said = message.iter().any(|message| reason.contains(message));
            assert!(
                is_said && (reason.contains("API socket: ") || reason.contains(".sock: ")),
                "{name}: {source}: {reason}"
            );
        }
        let metrics = daemon.metrics().unwrap();
        assert_eq!(metrics.samples("vm_cpu_seconds_total").count(), 3, "{name}");
        assert_eq!(metrics.samples("vm_allocated_vcpus").count(), 3, "{name}: by the command lines");
        let memory = metrics.value("process_resident_memory_bytes", &[]).unwrap();
        assert!(memory < (60 << 20) as f64, "{name}: {memory} bytes");
    }
}
