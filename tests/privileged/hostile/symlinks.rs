//! Links to root's files and sockets give a tenant no access.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::user::ATTACKER;
use crate::isolation::isolated;

const CONFIG: &str = r#"{"machine-config": {"vcpu_count": 7, "mem_size_mib": 256}}"#;

const QEMU_CONFIG: &str = "[smp-opts]\n  cpus = \"7\"\n";

/// The first line of a shadow file.
const SECRET: &str = "root:$6$Vm0zE9:20000:0:99999:7:::\n";

fn put(path: &Path, content: &str, mode: u32, uid: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
}

/// Starts a Firecracker of the attacker in its own directory.
fn fake(scene: &Scene, arguments: &[&str]) -> Tenant {
    let argv = [&["--id", "fake"], arguments].concat();
    scene.attacker("firecracker", &argv)
}

fn vcpus(metrics: &Metrics) -> Option<f64> {
    metrics.value("vm_allocated_vcpus", &[("instance_id", "fake")])
}

/// Returns all text that the daemon publishes after it read the fake.
fn published(daemon: &Daemon) -> String {
    daemon.wait_for(SOON, "the fake", of_fake).unwrap();
    let problem = |_: &Metrics| daemon.log().contains("cannot be used").then_some(());
    daemon.wait_for(SOON, "the problem", problem).unwrap();
    let metrics = daemon.metrics().unwrap();
    assert_eq!(vcpus(&metrics), None, "a file of root has been read");
    let sources = daemon.get("/api/v1/sources", None).unwrap().body;
    let vms = daemon.get("/api/v1/vms", None).unwrap().body;
    let bodies = [sources, vms].map(|body| String::from_utf8(body.to_vec()).unwrap());
    format!("{}\n{}\n{}", daemon.scrape().unwrap(), bodies.join("\n"), daemon.log())
}

fn of_fake(metrics: &Metrics) -> Option<f64> {
    let mut infos = metrics.samples("vm_info");
    infos.find(|info| info.label("instance_id") == Some("fake")).map(|info| info.value)
}

/// Even from the attacker's own file, which its process may read, nothing is repeated.
#[test]
fn files_of_root_are_not_read() {
    isolated("hostile::symlinks::files_of_root_are_not_read", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        let closed = scene.path("closed");
        fs::create_dir(&closed).unwrap();
        put(&closed.join("open.json"), CONFIG, 0o644, 0);
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        put(&scene.path("secret.json"), CONFIG, 0o600, 0);
        put(&scene.path("shadow"), SECRET, 0o600, 0);
        put(&jail.join("shadow"), SECRET, 0o600, ATTACKER);
        symlink(scene.path("secret.json"), jail.join("link.json")).unwrap();
        symlink("../secret.json", jail.join("upwards.json")).unwrap();
        symlink("/proc/1/root", jail.join("magic")).unwrap();
        let secret = scene.path("secret.json");
        let magic = jail.join("magic").join(secret.strip_prefix("/").unwrap());
        let names: Vec<PathBuf> = vec![
            scene.path("secret.json"),
            scene.path("shadow"),
            closed.join("open.json"),
            jail.join("link.json"),
            jail.join("upwards.json"),
            magic,
            jail.join("shadow"),
            jail.join("none.json"),
        ];
        for start in [Scene::daemon, Scene::daemon_of_root] {
            for name in &names {
                let _fake = fake(&scene, &["--no-api", "--config-file", name.to_str().unwrap()]);
                let published = published(&start(&scene, ""));
                for word in ["$6$", "Permission", "No such file", "denied", "Firecracker config"] {
                    assert!(!published.contains(word), "{}: {word}: {published}", name.display());
                }
            }
        }
    });
}

/// QEMU's `-readconfig` behaves like Firecracker's file.
#[test]
fn files_of_qemu_are_read_with_its_rights() {
    isolated("hostile::symlinks::files_of_qemu_are_read_with_its_rights", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        let (of_root, shadow, own) = (scene.path("root.cfg"), jail.join("shadow"), jail.join("own.cfg"));
        put(&of_root, QEMU_CONFIG, 0o600, 0);
        put(&shadow, SECRET, 0o600, ATTACKER);
        put(&own, QEMU_CONFIG, 0o600, ATTACKER);
        let qemu = |file: &Path| {
            let argv = ["-name", "fake", "-smp", "2", "-readconfig", file.to_str().unwrap()];
            scene.attacker("qemu-system-x86_64", &argv)
        };
        for start in [Scene::daemon, Scene::daemon_of_root] {
            for file in [&of_root, &shadow] {
                let _fake = qemu(file);
                let published = published(&start(&scene, ""));
                for word in ["$6$", "Permission", "denied", "QEMU config"] {
                    assert!(!published.contains(word), "{}: {word}: {published}", file.display());
                }
            }
            let _fake = qemu(&own);
            let seven = |metrics: &Metrics| vcpus(metrics).filter(|vcpus| *vcpus == 7.0);
            start(&scene, "").wait_for(SOON, "its vCPUs", seven).unwrap();
        }
    });
}

#[test]
fn the_tenants_own_files_are_read() {
    isolated("hostile::symlinks::the_tenants_own_files_are_read", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        fs::set_permissions(&jail, Permissions::from_mode(0o700)).unwrap();
        put(&jail.join("vm.json"), CONFIG, 0o600, ATTACKER);
        symlink("vm.json", jail.join("link.json")).unwrap();
        let link = jail.join("link.json");
        let _fake = fake(&scene, &["--no-api", "--config-file", link.to_str().unwrap()]);
        for start in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = start(&scene, "");
            daemon
                .wait_for(SOON, "its vCPUs", |metrics| vcpus(metrics).filter(|vcpus| *vcpus == 7.0))
                .unwrap();
        }
    });
}

/// Any user may connect to this socket of root.
#[test]
fn foreign_sockets_receive_nothing() {
    isolated("hostile::symlinks::foreign_sockets_receive_nothing", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        let socket = scene.path("root.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let hears = Arc::clone(&heard);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                hears.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        });
        symlink(&socket, jail.join("api.sock")).unwrap();
        let link = jail.join("api.sock");
        let _fake = fake(&scene, &["--api-sock", link.to_str().unwrap()]);
        for start in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = start(&scene, "");
            let published = published(&daemon);
            assert!(!published.contains("root.sock") && !published.contains("listens"), "{published}");
            assert_eq!(heard.load(Ordering::Relaxed), 0, "bytes were written to a socket of root");
        }
    });
}

#[test]
fn the_tenants_own_socket_is_asked() {
    isolated("hostile::symlinks::the_tenants_own_socket_is_asked", || {
        let scene = Scene::new();
        let jail = scene.directory_of(ATTACKER, "jail");
        let socket = jail.join("api.sock");
        let mut fake = fake(&scene, &["--api-sock", socket.to_str().unwrap()]);
        let answers = [("/", r#"{"id":"fake","state":"Running"}"#), ("/vm/config", CONFIG)];
        let answers = answers.map(|(path, body)| (path.to_owned(), body.to_owned())).to_vec();
        fake.perform(&Action::ServeHttp { socket, answers }).unwrap();
        let daemon = scene.daemon_of_root("");
        daemon.wait_for(SOON, "its vCPUs", |metrics| vcpus(metrics).filter(|vcpus| *vcpus == 7.0)).unwrap();
    });
}
