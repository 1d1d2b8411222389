//! The attacked host: a service user's daemon and an exact victim.

use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind};
use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::{Metrics, Sample};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::service;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::tenant::{Action, FRAME, Tenant, TenantSpec, link_test_program};
use vm_metrics_testkit::wait::SOON;

/// The user of the daemon.
pub(super) const SERVICE: u32 = service::UID;

/// Default configuration, unless the test's tables begin with an interval. It shows all errors over TCP, so that tests
/// find leaks.
const OFTEN: &str = "interval = \"100ms\"\nhttp.show_errors = true\n";

/// A network namespace with a public directory and an empty `/run`. Every user may open `/dev/net/tun` and `/dev/fuse`,
/// as on most hosts.
pub(super) struct Scene {
    dir: TempDir,
    _namespace: NetNs,
}

impl Scene {
    /// Makes the scene. Call it inside of `isolated`, so that the daemon sees only processes of this test.
    pub(super) fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        // The mounts belong to the test's namespace.
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
        fs::set_permissions("/run", Permissions::from_mode(0o755)).unwrap();
        fs::create_dir("/run/vm-metrics").unwrap();
        chown("/run/vm-metrics", Some(SERVICE), Some(SERVICE)).unwrap();
        for (name, minor) in [("net/tun", 200), ("fuse", 229)] {
            let node = dir.path().join(format!("node{minor}"));
            mknodat(CWD, &node, FileType::CharacterDevice, Mode::empty(), makedev(10, minor)).unwrap();
            fs::set_permissions(&node, Permissions::from_mode(0o666)).unwrap();
            mount_bind(&node, Path::new("/dev").join(name)).unwrap();
        }
        let scene = Self { dir, _namespace: namespace };
        let daemon = scene.path("vm-metrics");
        let built = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
        if fs::hard_link(built, &daemon).is_err() {
            fs::copy(built, &daemon).unwrap();
        }
        scene
    }

    /// Returns the path of a file in the scene's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory of this user in the scene's directory.
    pub(super) fn directory_of(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }

    /// Returns the test program under this name, for tenants.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let directory = self.path("programs");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        if !path.exists() {
            link_test_program(&path).unwrap();
        }
        path
    }

    /// Copies the test program, so that it differs from those of [`Self::program`].
    pub(super) fn other_program(&self, name: &str) -> PathBuf {
        let directory = self.path("others");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    }

    /// Returns an idle program under this name, for thousands of fakes.
    pub(super) fn idle_program(&self, name: &str) -> PathBuf {
        let directory = self.path("idle");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        if !path.exists() {
            let shell = ["/bin/dash", "/bin/busybox"].into_iter().find(|shell| Path::new(shell).exists());
            fs::copy(shell.expect("a shell"), &path).unwrap();
        }
        path
    }

    /// Starts a daemon with the unit's capabilities and these tables in its configuration.
    pub(super) fn daemon(&self, tables: &str) -> Daemon {
        self.service(&service::capabilities(), tables)
    }

    /// Starts a daemon that also has `CAP_SYS_ADMIN`, which the unit lists for VMs in foreign namespaces.
    pub(super) fn daemon_of_namespaces(&self, tables: &str) -> Daemon {
        let mut capabilities = service::capabilities();
        capabilities.push("+sys_admin".to_owned());
        self.service(&capabilities, tables)
    }

    pub(super) fn daemon_of_root(&self, tables: &str) -> Daemon {
        self.start(Command::new(self.path("vm-metrics")), tables)
    }

    fn service(&self, capabilities: &[String], tables: &str) -> Daemon {
        let command = service::command(&self.path("vm-metrics"), capabilities);
        self.start(command, tables)
    }

    fn start(&self, mut command: Command, tables: &str) -> Daemon {
        let config = self.path("config.toml");
        let often = if tables.starts_with("interval") { "" } else { OFTEN };
        fs::write(&config, format!("{often}{tables}")).unwrap();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        let daemon = Daemon::start_command(command).unwrap();
        daemon.wait_until_ready().unwrap();
        daemon
    }

    /// Starts a QEMU of root with this id and a TAP of this name.
    pub(super) fn victim(&self, id: &str, tap: &str) -> Victim {
        let argv = ["-name", &format!("guest={id}"), "-uuid", id];
        self.victim_with(id, "qemu-system-x86_64", &argv, tap)
    }

    /// Starts a VM of root with this program and these arguments.
    pub(super) fn victim_with(&self, id: &str, program: &str, argv: &[&str], tap: &str) -> Victim {
        let argv = argv.iter().map(Into::into).collect();
        let spec = TenantSpec { program: self.program(program), argv, ..TenantSpec::default() };
        let mut vmm = Tenant::start(spec).unwrap();
        let open = Action::OpenTap { name: tap.to_owned(), multi_queue: false, up: true };
        let fd = i32::try_from(vmm.perform(&open).unwrap()).unwrap();
        Victim::new(id, tap, vmm, fd)
    }

    /// Starts a VM of an ordinary user. Root made its TAP in the daemon's namespace.
    pub(super) fn vm_of(&self, uid: u32, id: &str, program: &str, argv: &[&str], tap: &str) -> Victim {
        let device = Tap::create_up(tap, TapOptions::default()).unwrap();
        let inherited = device.as_fd().try_clone_to_owned().unwrap();
        let vmm = self.tenant_of(uid, program, argv, vec![(inherited, INHERITED)]);
        Victim::new(id, tap, vmm, INHERITED)
    }
}

/// The TAP's descriptor in a VM of [`Scene::vm_of`].
const INHERITED: i32 = 100;

/// A VM with a TAP in the daemon's namespace, whose traffic is known to the byte.
pub(super) struct Victim {
    pub(super) id: String,
    pub(super) tap: String,
    pub(super) vmm: Tenant,
    pub(super) fd: i32,
    host: PacketSocket,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Victim {
    fn new(id: &str, tap: &str, vmm: Tenant, fd: i32) -> Self {
        let host = PacketSocket::bind(tap).unwrap();
        Self { id: id.to_owned(), tap: tap.to_owned(), vmm, fd, host, sent: 0, received: 0 }
    }

    /// Sends so many frames, and receives as many.
    pub(super) fn work(&mut self, frames: u64) {
        self.vmm.perform(&Action::Send { fd: self.fd, frames }).unwrap();
        self.sent += frames * FRAME;
        let frame = Frame::to_guest().udp4(500);
        for _ in 0..frames {
            self.host.send(&frame).unwrap();
            // Take each frame at once, because the queue could fill up.
            self.received += self.vmm.perform(&Action::Take { fd: self.fd }).unwrap();
        }
    }

    /// Waits until exactly these bytes are published under its id alone, and never more.
    pub(super) fn assert_exact(&self, daemon: &Daemon) {
        let expected = (self.sent as f64, self.received as f64);
        let what = format!("{} to have sent {} bytes and received {}", self.id, expected.0, expected.1);
        let mut last = None;
        let exact = daemon.wait_for(SOON, &what, |metrics| {
            self.assert_alone(metrics);
            last = self.published(metrics);
            let (sent, received) = last?;
            assert!(sent <= expected.0 && received <= expected.1, "{sent} and {received}, not {what}");
            (last == Some(expected)).then_some(())
        });
        exact.unwrap_or_else(|error| {
            panic!("{error:#}; published: {last:?}; {}", known_of(&self.tap, daemon))
        });
    }

    /// Returns its published bytes: sent and received.
    pub(super) fn published(&self, metrics: &Metrics) -> Option<(f64, f64)> {
        let labels = [("instance_id", self.id.as_str()), ("device", &self.tap), ("netns", "")];
        let value = |name: &str| metrics.value(name, &labels);
        Some((value("vm_network_tx_bytes_total")?, value("vm_network_rx_bytes_total")?))
    }

    /// Fails if another VM has its device.
    fn assert_alone(&self, metrics: &Metrics) {
        for sample in of_device(&self.tap, metrics) {
            let owner = sample.label("instance_id");
            let known = || metrics.samples("vm_info").collect::<Vec<_>>();
            assert_eq!(owner, Some(self.id.as_str()), "{} is another one's: {:?}", self.tap, known());
        }
    }
}

/// Returns the series of a device in the daemon's namespace.
pub(super) fn of_device<'a>(device: &'a str, metrics: &'a Metrics) -> impl Iterator<Item = &'a Sample> {
    let names = ["vm_network_tx_bytes_total", "vm_network_rx_bytes_total", "vm_network_source_info"];
    let samples = names.into_iter().flat_map(|name| metrics.samples(name));
    samples.filter(move |sample| {
        sample.label("device") == Some(device) && sample.label("netns").unwrap_or_default().is_empty()
    })
}

/// Describes a device for the message of a failure.
fn known_of(device: &str, daemon: &Daemon) -> String {
    let metrics = daemon.metrics().unwrap();
    let infos = metrics.samples("vm_info").map(|sample| format!("{:?}", sample.labels));
    let devices = of_device(device, &metrics).map(|sample| format!("{:?}", sample.labels));
    infos.chain(devices).collect::<Vec<_>>().join("\n")
}
