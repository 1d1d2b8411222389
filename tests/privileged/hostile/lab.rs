//! The host on which the attacks take place: a daemon of a service user, and a victim with known traffic.

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

/// What a daemon of the tests is told before the tables of the test, unless these begin with an interval. It shows all
/// errors over TCP, so that tests see whether they tell too much.
const OFTEN: &str = "interval = \"100ms\"\nhttp.show_errors = true\n";

/// A network namespace of its own with a directory that everybody may read, a `/run` that is empty, and a
/// `/dev/net/tun` and a `/dev/fuse` that everybody may open, as on most hosts.
pub(super) struct Scene {
    dir: TempDir,
    _namespace: NetNs,
}

impl Scene {
    /// To be called inside of `isolated`, so that the daemon sees only processes of this test.
    pub(super) fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        // The mounts are those of the namespace.
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

    /// A file in the directory of the scene.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new directory in that of the scene, which belongs to this user.
    pub(super) fn directory_of(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }

    /// The test program under this name, for tenants.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let directory = self.path("programs");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        if !path.exists() {
            link_test_program(&path).unwrap();
        }
        path
    }

    /// The same in a file of its own: it is another program than those of [`Self::program`].
    pub(super) fn other_program(&self, name: &str) -> PathBuf {
        let directory = self.path("others");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    }

    /// A program under this name that does nothing until it is killed, for thousands of fakes.
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

    /// With the capabilities of the unit, and the tables of the test in its configuration.
    pub(super) fn daemon(&self, tables: &str) -> Daemon {
        self.service(&service::capabilities(), tables)
    }

    /// The same with `CAP_SYS_ADMIN`, which the unit names for VMs in network namespaces of their own.
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

    /// A QEMU of root with this id and a TAP of this name.
    pub(super) fn victim(&self, id: &str, tap: &str) -> Victim {
        let argv = ["-name", &format!("guest={id}"), "-uuid", id];
        self.victim_with(id, "qemu-system-x86_64", &argv, tap)
    }

    /// A VM of root that runs this program with these arguments.
    pub(super) fn victim_with(&self, id: &str, program: &str, argv: &[&str], tap: &str) -> Victim {
        let argv = argv.iter().map(Into::into).collect();
        let spec = TenantSpec { program: self.program(program), argv, ..TenantSpec::default() };
        let mut vmm = Tenant::start(spec).unwrap();
        let open = Action::OpenTap { name: tap.to_owned(), multi_queue: false, up: true };
        let fd = i32::try_from(vmm.perform(&open).unwrap()).unwrap();
        Victim::new(id, tap, vmm, fd)
    }

    /// A VM of an ordinary user, which holds a TAP of the daemon's namespace that root made for it.
    pub(super) fn vm_of(&self, uid: u32, id: &str, program: &str, argv: &[&str], tap: &str) -> Victim {
        let device = Tap::create_up(tap, TapOptions::default()).unwrap();
        let inherited = device.as_fd().try_clone_to_owned().unwrap();
        let vmm = self.tenant_of(uid, program, argv, vec![(inherited, INHERITED)]);
        Victim::new(id, tap, vmm, INHERITED)
    }
}

/// The descriptor that a VM of [`Scene::vm_of`] has its TAP under.
const INHERITED: i32 = 100;

/// A VM with a TAP in the daemon's network namespace. It is known to the byte what it sent and received.
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
            // At once: a queue of frames could be full.
            self.received += self.vmm.perform(&Action::Take { fd: self.fd }).unwrap();
        }
    }

    /// Until exactly these bytes are published, and never more, under its id alone.
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

    /// What is published of it now: sent and received.
    pub(super) fn published(&self, metrics: &Metrics) -> Option<(f64, f64)> {
        let labels = [("instance_id", self.id.as_str()), ("device", &self.tap), ("netns", "")];
        let value = |name: &str| metrics.value(name, &labels);
        Some((value("vm_network_tx_bytes_total")?, value("vm_network_rx_bytes_total")?))
    }

    /// Nobody else has its device.
    fn assert_alone(&self, metrics: &Metrics) {
        for sample in of_device(&self.tap, metrics) {
            let owner = sample.label("instance_id");
            assert_eq!(owner, Some(self.id.as_str()), "{} is another one's: {sample:?}", self.tap);
        }
    }
}

/// The series of a device of the daemon's network namespace.
pub(super) fn of_device<'a>(device: &'a str, metrics: &'a Metrics) -> impl Iterator<Item = &'a Sample> {
    let names = ["vm_network_tx_bytes_total", "vm_network_rx_bytes_total", "vm_network_source_info"];
    let samples = names.into_iter().flat_map(|name| metrics.samples(name));
    samples.filter(move |sample| {
        sample.label("device") == Some(device) && sample.label("netns").unwrap_or_default().is_empty()
    })
}

/// What a failed test shows of a device.
fn known_of(device: &str, daemon: &Daemon) -> String {
    let metrics = daemon.metrics().unwrap();
    let infos = metrics.samples("vm_info").map(|sample| format!("{:?}", sample.labels));
    let devices = of_device(device, &metrics).map(|sample| format!("{:?}", sample.labels));
    infos.chain(devices).collect::<Vec<_>>().join("\n")
}
