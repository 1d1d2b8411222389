//! Hostile neighbours: unprivileged processes that impersonate the victims and flood the daemon.
//!
//! The seed determines their actions. It does not determine how often a background action repeats, because the machine
//! may be slow.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::mount_bind;
use tempfile::TempDir;
use vm_metrics_testkit::tenant::{Action, Tenant, TenantSpec, link_test_program};

use crate::vmm::idle_program;
use vm_metrics_testkit::random::Random;

/// The uid of the user `nobody`.
const USER: u32 = 65_534;

/// An attack follows one of so many steps.
const EVERY: usize = 10;

/// Milliseconds between two rounds of a background action. The victims need the machine too.
const REST: u64 = 10;

/// Milliseconds between two fakes with the id of a VM that ends.
const SWARM_PAUSE: u64 = 30;

const THREADS: usize = 32;
const DESCRIPTORS: usize = 500;

#[derive(Debug)]
pub(crate) struct Neighbours {
    random: Random,
    /// Each VM and the name of its device.
    victims: Vec<(String, String)>,
    places: Directories,
    impostor: Tenant,
    /// The descriptor of the impostor's TAP.
    impostor_fd: i32,
    swapper: Tenant,
    api: Tenant,
    claimant: Tenant,
    swarm: Tenant,
    flapper: Tenant,
    caller: Tenant,
    crowd: Tenant,
    acts: BTreeMap<&'static str, u64>,
}

/// Their programs and their directory.
#[derive(Debug)]
struct Directories {
    dir: TempDir,
    idle: PathBuf,
    sockets: usize,
}

impl Neighbours {
    /// Starts the neighbours. Call it in the daemon's network namespace, before any TAP that a new process could
    /// inherit.
    pub(crate) fn move_in(seed: u64, victims: Vec<(String, String)>) -> Self {
        let places = Directories::new();
        let (id, tap) = victims[0].clone();
        let start = |program, argv: &[&str]| places.start(program, argv);
        let mut flapper = start("tenant", &[]);
        unshare(&mut flapper);
        flapper.perform(&Action::KeepFlapping { count: 2 }).unwrap();
        flapper.perform(&Action::Rest { pause: REST }).unwrap();
        let mut neighbours = Self {
            random: Random::new(seed),
            impostor: start("qemu-system-x86_64", &[]),
            impostor_fd: 0,
            swapper: start("qemu-system-x86_64", &[]),
            api: start("firecracker", &["--id", &id]),
            claimant: start("tenant", &[]),
            swarm: start("tenant", &[]),
            flapper,
            caller: start("tenant", &[]),
            crowd: start("qemu-system-x86_64", &[]),
            victims,
            places,
            acts: BTreeMap::new(),
        };
        neighbours.impersonate(&id, &tap);
        neighbours.become_another(&id);
        neighbours.swap(&id, &tap);
        neighbours.answer(&id, &tap);
        neighbours.claim(&id, &tap);
        neighbours.flap(&tap);
        neighbours.crowd(&id);
        neighbours
    }

    /// Attacks after a step of the schedule.
    pub(crate) fn act(&mut self) {
        if !self.random.one_in(EVERY) {
            return;
        }
        let (id, tap) = self.victims[self.random.of(0..self.victims.len())].clone();
        match self.random.of(0..7) {
            0 => self.impersonate(&id, &tap),
            1 => self.become_another(&id),
            2 => self.answer(&id, &tap),
            3 => self.claim(&id, &tap),
            4 => self.swap(&id, &tap),
            5 => self.flap(&tap),
            _ => self.crowd(&id),
        }
    }

    /// Starts and ends processes with the id of a VM that ends.
    pub(crate) fn swarm(&mut self, id: &str, tap: &str) {
        self.count("swarming fakes", |all| all.swarm.perform(&Action::Stop).unwrap());
        let argv = ["-c", "kill -STOP $$", "sh", "-name", &format!("guest={id}"), "-uuid", id, "-netdev"];
        let mut argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        argv.push(format!("tap,id=n0,ifname={tap}"));
        let (program, pause) = (self.places.idle.clone(), SWARM_PAUSE);
        self.swarm.perform(&Action::KeepSpawning { program, argv, pause }).unwrap();
    }

    /// Tells the neighbours the new address of the daemon.
    pub(crate) fn call(&mut self, address: SocketAddr) {
        self.count("connections", |all| all.caller.perform(&Action::Stop).unwrap());
        self.caller.perform(&Action::KeepRequesting { address }).unwrap();
        self.caller.perform(&Action::Rest { pause: REST / 2 }).unwrap();
    }

    /// Ends all neighbours, and returns the number of attacks of each kind.
    pub(crate) fn leave(mut self) -> BTreeMap<&'static str, u64> {
        self.count("swarming fakes", |all| all.swarm.perform(&Action::Stop).unwrap());
        self.count("connections", |all| all.caller.perform(&Action::Stop).unwrap());
        self.count("swaps", |all| all.swapper.perform(&Action::Stop).unwrap());
        self.count("flaps", |all| all.flapper.perform(&Action::Stop).unwrap());
        self.acts
    }

    /// Starts a QEMU with the victim's id, and a TAP of the victim's name in a namespace of its own.
    fn impersonate(&mut self, id: &str, tap: &str) {
        self.impostor = self.places.start("qemu-system-x86_64", &["-name", &format!("guest={id}")]);
        unshare(&mut self.impostor);
        self.impostor_fd = self.impostor.open_tap(tap).unwrap();
        self.impostor.perform(&Action::Send { fd: self.impostor_fd, frames: 5 }).unwrap();
        self.count("impostors", |_| 1);
    }

    /// Replaces the impostor by another program with another id.
    fn become_another(&mut self, id: &str) {
        let name = self.random.one_of(&["cloud-hypervisor", "qemu-system-x86_64"]);
        let argv = match name {
            "cloud-hypervisor" => ["--platform".to_owned(), format!("uuid={id}")],
            _ => ["-uuid".to_owned(), id.to_owned()],
        };
        let (program, fd) = (self.places.program(name), self.impostor_fd);
        self.impostor.perform(&Action::Exec { program, argv: argv.to_vec(), keep: vec![fd] }).unwrap();
        self.impostor.perform(&Action::Send { fd, frames: 5 }).unwrap();
        self.count("programs executed", |_| 1);
    }

    /// Starts a Firecracker whose API names the victim's device.
    fn answer(&mut self, id: &str, tap: &str) {
        let socket = self.places.socket();
        self.api = self.places.start("firecracker", &["--id", id, "--api-sock", socket.to_str().unwrap()]);
        let instance = format!(r#"{{"id":"{id}","state":"Running","vmm_version":"1.13.0"}}"#);
        let interface = format!(r#"{{"iface_id":"eth0","host_dev_name":"{tap}"}}"#);
        let machine = r#"{"vcpu_count":2,"mem_size_mib":64}"#;
        let config = format!(r#"{{"machine-config":{machine},"network-interfaces":[{interface}]}}"#);
        let answers = [("/", instance), ("/vm/config", config)];
        let answers = answers.map(|(path, body)| (path.to_owned(), body)).to_vec();
        self.api.perform(&Action::ServeHttp { socket, answers }).unwrap();
        self.count("false APIs", |_| 1);
    }

    /// Starts processes in the daemon's namespace whose command lines name the victim's device.
    fn claim(&mut self, id: &str, tap: &str) {
        self.claimant.perform(&Action::Stop).unwrap();
        let argv = ["-c", "kill -STOP $$", "sh", "-uuid", id, "-nic"];
        let mut argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        argv.push(format!("tap,ifname={tap},script=no"));
        let program = self.places.idle.clone();
        self.claimant.perform(&Action::Spawn { program, argv, count: 2 }).unwrap();
        self.count("claims", |_| 2);
    }

    /// Swaps descriptors between a foreign TAP of the victim's name, a file, and back.
    fn swap(&mut self, id: &str, tap: &str) {
        self.count("swaps", |all| all.swapper.perform(&Action::Stop).unwrap());
        self.swapper = self.places.start("qemu-system-x86_64", &["-uuid", id]);
        unshare(&mut self.swapper);
        let one = self.swapper.open_tap(tap).unwrap();
        self.swapper.perform(&Action::Send { fd: one, frames: 5 }).unwrap();
        let file = Action::OpenFile { path: "/dev/null".into() };
        let other = i32::try_from(self.swapper.perform(&file).unwrap()).unwrap();
        self.swapper.perform(&Action::KeepSwapping { one, other, to: (200..216).collect() }).unwrap();
        self.swapper.perform(&Action::Rest { pause: REST / 5 }).unwrap();
    }

    /// Flaps links, and a TAP of the victim's name, in a namespace of their own.
    fn flap(&mut self, tap: &str) {
        self.count("flaps", |all| all.flapper.perform(&Action::Stop).unwrap());
        self.flapper = self.places.start("qemu-system-x86_64", &["-name", "flapper"]);
        unshare(&mut self.flapper);
        self.flapper.perform(&Action::KeepFlapping { count: 2 }).unwrap();
        self.flapper.perform(&Action::KeepRemakingTap { name: tap.to_owned() }).unwrap();
        self.flapper.perform(&Action::Rest { pause: REST }).unwrap();
    }

    /// Starts a QEMU with more vCPUs and descriptors than it can use.
    fn crowd(&mut self, id: &str) {
        self.crowd = self.places.start("qemu-system-x86_64", &["-name", &format!("guest={id}")]);
        for name in ["CPU 0/KVM", "CPU 1/KVM"] {
            let (name, count) = (name.to_owned(), THREADS / 2);
            self.crowd.perform(&Action::StartThreads { name, count }).unwrap();
        }
        self.crowd.perform(&Action::OpenMany { path: "/dev/null".into(), count: DESCRIPTORS }).unwrap();
        self.count("crowds", |_| 1);
    }

    fn count(&mut self, what: &'static str, act: impl FnOnce(&mut Self) -> u64) {
        let times = act(self);
        *self.acts.entry(what).or_default() += times;
    }
}

impl Directories {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let sockets = dir.path().join("sockets");
        fs::create_dir(&sockets).unwrap();
        chown(&sockets, Some(USER), Some(USER)).unwrap();
        let idle = idle_program(&dir.path().join("idle"), "qemu-system-x86_64");
        // Most hosts have it so. The mount belongs to the test's namespace.
        let tun = dir.path().join("tun");
        mknodat(CWD, &tun, FileType::CharacterDevice, Mode::empty(), makedev(10, 200)).unwrap();
        fs::set_permissions(&tun, Permissions::from_mode(0o666)).unwrap();
        mount_bind(&tun, "/dev/net/tun").unwrap();
        Self { dir, idle, sockets: 0 }
    }

    fn start(&self, program: &str, argv: &[&str]) -> Tenant {
        let argv = argv.iter().map(Into::into).collect();
        let program = self.program(program);
        Tenant::start(TenantSpec { program, argv, uid: Some(USER), ..TenantSpec::default() }).unwrap()
    }

    /// Returns the test program under this name.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        if !path.exists() {
            link_test_program(&path).unwrap();
        }
        path
    }

    /// Returns a socket path without a listener.
    fn socket(&mut self) -> PathBuf {
        self.sockets += 1;
        Path::new(self.dir.path()).join("sockets").join(self.sockets.to_string())
    }
}

fn unshare(tenant: &mut Tenant) {
    tenant.perform(&Action::Unshare { net: true, mount: false, pid: false }).unwrap();
}
