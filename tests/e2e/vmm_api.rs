//! VMMs that the daemon finds by their processes are asked over their API sockets, in the root of each process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use vm_metrics_testkit::wait::SOON;

use crate::fixture::Fixture;

/// Answers like Firecracker's server.
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

#[test]
fn a_stand_in_of_firecracker_in_a_chroot_is_asked_and_one_that_hangs_holds_up_nothing() {
    let fixture = Fixture::copy_of("mixed");
    let listen = |pid: u32, socket: &str| {
        let directory = fixture.proc().join(format!("{pid}/root/run"));
        fs::create_dir_all(&directory).unwrap();
        UnixListener::bind(directory.join(socket)).unwrap()
    };
    stand_in_of_firecracker(listen(4300, "fc-1.sock"));
    let _hangs = listen(4400, "db.sock");
    let daemon = fixture.serve();
    let vm = |metrics: &vm_metrics_testkit::metrics_text::Metrics, name: &str, hypervisor: &str| {
        let info = metrics.samples("vm_info").find(|vm| vm.label("hypervisor") == Some(hypervisor))?;
        metrics.value(name, &[("instance_id", info.label("instance_id")?)])
    };
    let asked = |metrics: &_| vm(metrics, "vm_allocated_vcpus", "firecracker").filter(|vcpus| *vcpus == 8.0);
    daemon.wait_for(SOON, "what Firecracker says", asked).unwrap();
    let metrics = daemon.metrics().unwrap();
    assert_eq!(vm(&metrics, "vm_allocated_memory_bytes", "firecracker"), Some(2_147_483_648.0));
    // By its command line.
    assert_eq!(vm(&metrics, "vm_allocated_vcpus", "cloud-hypervisor"), Some(2.0));
    let health = |state| {
        let labels = [("kind", "source"), ("part", "cloud_hypervisor"), ("state", state)];
        daemon.wait_for(SOON, "the health", |metrics| metrics.value("vm_metrics_part_health", &labels))
    };
    assert_eq!(health("degraded").unwrap(), 1.0);
    let log = daemon.log();
    let problem = "process 4400: API socket /run/db.sock: no answer within 200 ms: it is busy or hangs";
    assert!(log.contains(problem), "{log}");
}
