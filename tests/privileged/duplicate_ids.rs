//! VMs with one claimed id keep their own bytes over restarts.
//!
//! The VMs start and stop at random while the daemon restarts. `TESTKIT_SEED=<number>` repeats the steps.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::random::{self, Random};
use vm_metrics_testkit::tenant::{Action, FRAME, Tenant, TenantSpec, link_test_program};
use vm_metrics_testkit::wait::SOON;

use crate::conservation::SEED;
use crate::isolation::{figures, isolated};

const STEPS: usize = 80;

/// A VM with the command line of its manager.
struct Twin {
    program: &'static str,
    argv: &'static [&'static str],
    /// Its working directory.
    directory: &'static str,
    /// The expected id, if no other VM may claim it.
    id: Option<&'static str>,
    /// Other VMs are identical, so each of its processes is a VM of its own.
    is_identical: bool,
}

const UUID: &str = "5a9fc181-957e-5c32-9e5a-2de5e9673531";

const fn twin(program: &'static str, argv: &'static [&'static str], directory: &'static str) -> Twin {
    Twin { program, argv, directory, id: None, is_identical: false }
}

/// Proxmox, KubeVirt, Cloud Hypervisor by hand, flintlock, QEMU by hand, and QEMU by hand twice in one place.
const TWINS: &[Twin] = &[
    Twin { id: Some("121"), ..twin("kvm", &["-id", "121", "-name", "ubuntu"], "a") },
    Twin { id: Some("122"), ..twin("kvm", &["-id", "122", "-name", "ubuntu"], "a") },
    twin("qemu-system-x86_64", &["-name", "guest=t1_test", "-uuid", UUID], "a"),
    twin("qemu-system-x86_64", &["-name", "guest=t2_test", "-uuid", UUID], "a"),
    Twin { id: Some("a"), ..twin("cloud-hypervisor", &["--api-socket", "ch.sock"], "a") },
    Twin { id: Some("b"), ..twin("cloud-hypervisor", &["--api-socket", "ch.sock"], "b") },
    twin("cloud-hypervisor", &["--api-socket", "/srv/ns/web/uid/cloudhypervisor.sock"], "a"),
    twin("cloud-hypervisor", &["--api-socket", "/srv/other/web/uid/cloudhypervisor.sock"], "a"),
    twin("qemu-system-x86_64", &["-name", "web"], "a"),
    twin("qemu-system-x86_64", &["-name", "web"], "b"),
    Twin { is_identical: true, ..twin("qemu-system-x86_64", &["-name", "same"], "a") },
    Twin { is_identical: true, ..twin("qemu-system-x86_64", &["-name", "same"], "a") },
];

/// The unit of billing: a VM, or one process of an indistinguishable VM.
type Account = (usize, Option<u32>);

/// A process and its sent bytes.
struct Life {
    vmm: Tenant,
    fd: i32,
    tap: String,
    sent: u64,
}

struct World {
    dir: TempDir,
    daemon: Daemon,
    running: HashMap<usize, Life>,
    /// All TAPs so far, each with its account and its sent bytes.
    books: HashMap<String, (Account, u64)>,
    /// The account of each published id, and the id of each account.
    owners: HashMap<String, Account>,
    ids: HashMap<Account, String>,
    _namespace: NetNs,
}

#[test]
fn twins_keep_their_bytes_and_their_ids() {
    isolated("duplicate_ids::twins_keep_their_bytes_and_their_ids", || {
        let seed = random::seed(SEED);
        eprintln!("{SEED}={seed} makes these steps once more");
        let mut random = Random::new(seed);
        let mut world = World::new();
        let mut restarts = 0;
        for _ in 0..STEPS {
            let twin = random.of(0..TWINS.len());
            match random.of(0..10) {
                0 => {
                    world.restart(&mut random);
                    restarts += 1;
                }
                1..=3 => world.stop(twin),
                4..=6 => world.start(twin),
                _ => world.send(twin, 1 + random.number() % 20),
            }
        }
        world.settle();
        let (lives, ids) = (world.books.len(), world.owners.len());
        let sent: u64 = world.books.values().map(|(_, sent)| sent).sum();
        figures(&format!(
            "twins: {lives} processes, {ids} ids, {restarts} restarts, {sent} bytes (seed {seed})"
        ));
    });
}

impl World {
    /// All twins run before the daemon starts.
    fn new() -> Self {
        let namespace = NetNs::enter().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for directory in ["a", "b", "state"] {
            fs::create_dir(dir.path().join(directory)).unwrap();
        }
        let state = dir.path().join("state");
        let config = format!("interval = \"100ms\"\nretention = \"1h\"\nstate_dir = {state:?}\n");
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut books = HashMap::new();
        let running = (0..TWINS.len()).map(|twin| (twin, Life::new(dir.path(), twin, &mut books))).collect();
        let daemon = daemon(dir.path());
        let (owners, ids) = (HashMap::new(), HashMap::new());
        let mut world = Self { dir, daemon, running, books, owners, ids, _namespace: namespace };
        (0..TWINS.len()).for_each(|twin| world.send(twin, 5));
        world.settle();
        world
    }

    fn start(&mut self, twin: usize) {
        if !self.running.contains_key(&twin) {
            let life = Life::new(self.dir.path(), twin, &mut self.books);
            self.running.insert(twin, life);
            self.send(twin, 3);
        }
    }

    fn stop(&mut self, twin: usize) {
        if self.running.contains_key(&twin) {
            self.settle();
            self.running.remove(&twin).into_iter().for_each(|life| life.vmm.kill().unwrap());
        }
    }

    /// Ends and starts some VMs while no daemon runs.
    fn restart(&mut self, random: &mut Random) {
        self.settle();
        if random.one_in(2) {
            self.daemon.terminate().unwrap();
        } else {
            self.daemon.kill().unwrap();
        }
        for twin in 0..TWINS.len() {
            match random.of(0..3) {
                0 => self.running.remove(&twin).into_iter().for_each(|life| life.vmm.kill().unwrap()),
                1 => self.start(twin),
                _ => {}
            }
        }
        self.daemon = daemon(self.dir.path());
    }

    fn send(&mut self, twin: usize, frames: u64) {
        let Some(life) = self.running.get_mut(&twin) else { return };
        life.vmm.perform(&Action::Send { fd: life.fd, frames }).unwrap();
        life.sent += frames * FRAME;
        self.books.get_mut(&life.tap).unwrap().1 = life.sent;
    }

    /// Waits until each running VM has all its bytes. No VM ever has more.
    fn settle(&mut self) {
        let wanted: HashMap<&str, u64> =
            self.running.values().map(|life| (life.tap.as_str(), life.sent)).collect();
        let mut missing = Vec::new();
        let (books, owners, ids) = (&self.books, &mut self.owners, &mut self.ids);
        let settled = self.daemon.wait_for(SOON, "the bytes of all VMs", |metrics| {
            let published = published(metrics, books, owners, ids);
            missing = wanted.iter().filter(|(tap, sent)| published.get(**tap) != Some(sent)).collect();
            missing.is_empty().then_some(())
        });
        settled.unwrap_or_else(|error| panic!("{error:#}: {missing:?}"));
        for (account, id) in &self.ids {
            let expected = TWINS[account.0].id;
            assert!(expected.is_none_or(|expected| expected == id), "{id} is not {expected:?}");
        }
    }
}

/// Returns the bytes of each TAP, after a check that no id has two VMs and no VM two ids.
fn published(
    metrics: &Metrics,
    books: &HashMap<String, (Account, u64)>,
    owners: &mut HashMap<String, Account>,
    ids: &mut HashMap<Account, String>,
) -> HashMap<String, u64> {
    let mut published = HashMap::new();
    for sample in metrics.samples("vm_network_tx_bytes_total") {
        let (tap, id) = (sample.label("device").unwrap(), sample.label("instance_id").unwrap());
        let Some((account, sent)) = books.get(tap) else { continue };
        let owner = owners.entry(id.to_owned()).or_insert(*account);
        assert_eq!(owner, account, "{id} has bytes of two VMs");
        assert_eq!(ids.entry(*account).or_insert_with(|| id.to_owned()), id, "{tap} has another id");
        assert!(sample.value <= *sent as f64, "{id} has {} bytes, of {sent}", sample.value);
        published.insert(tap.to_owned(), sample.value as u64);
    }
    published
}

impl Life {
    fn new(dir: &Path, twin: usize, books: &mut HashMap<String, (Account, u64)>) -> Self {
        let Twin { program, argv, directory, is_identical, .. } = &TWINS[twin];
        let spec = TenantSpec {
            program: linked(dir, program),
            argv: argv.iter().map(Into::into).collect(),
            directory: Some(dir.join(directory)),
            ..TenantSpec::default()
        };
        let mut vmm = Tenant::start(spec).unwrap();
        let tap = format!("k{}", books.len());
        let open = Action::OpenTap { name: tap.clone(), multi_queue: false, up: true };
        let fd = i32::try_from(vmm.perform(&open).unwrap()).unwrap();
        let account = (twin, is_identical.then(|| vmm.pid()));
        books.insert(tap.clone(), (account, 0));
        Self { vmm, fd, tap, sent: 0 }
    }
}

fn linked(dir: &Path, program: &str) -> PathBuf {
    let path = dir.join(program);
    if !path.exists() {
        link_test_program(&path).unwrap();
    }
    path
}

fn daemon(dir: &Path) -> Daemon {
    let config = dir.join("config.toml");
    let binary = Path::new(env!("CARGO_BIN_EXE_vm-metrics"));
    Daemon::start(binary, &["--config", config.to_str().unwrap()]).unwrap()
}
