//! Tests of config files of fixture processes.

use super::*;
use crate::model::Hypervisor;
use crate::sources::proc_scan::cmdline::{self, ConfigFormat};
use crate::sources::proc_scan::fixture::{Fake, Fixture};
use crate::sources::process::ProcessDir;
use crate::sources::values::bounded::MAX_NICS;

const CONFIG: &str = r#"{"machine-config": {"vcpu_count": 3, "mem_size_mib": 256}}"#;

/// Processes of a user, each with a root that has the file.
fn put(fixture: &Fixture, pids: impl IntoIterator<Item = u32>, uid: u32) {
    for pid in pids {
        fixture.put(&Fake { pid, ..Fake::QEMU });
        let process = fixture.process(pid);
        fixture.set_user(pid, uid);
        std::fs::create_dir(process.join("root")).unwrap();
        std::fs::write(process.join("root/vm.json"), CONFIG).unwrap();
        std::fs::write(process.join("root/secret"), "root:$6$secret").unwrap();
    }
}

fn update(configs: &mut ConfigFiles, files: &[(u32, &str)]) -> Vec<(Option<u32>, u64)> {
    let file = |path: &str| Arc::new(ConfigFile { path: path.to_owned(), format: ConfigFormat::Firecracker });
    let files: Vec<_> = files.iter().map(|(pid, path)| ((*pid, 5000), file(path))).collect();
    let host = configs.host.clone();
    let files = files.iter().map(|(key, file)| (*key, ProcessDir::new(&host, key.0).uid(), file));
    let overuse = configs.update(Duration::ZERO, files).into_list();
    overuse.iter().map(|user| (user.uid, user.count)).collect()
}

/// In the first tick, unless the machine is too busy for it.
#[test]
fn files_are_known_after_few_ticks() {
    const TICKS: usize = 30;
    let fixture = Fixture::new();
    put(&fixture, 1..=100, 0);
    let mut configs = ConfigFiles::new(fixture.host(), Workers::default());
    let files: Vec<_> = (1..=100).map(|pid| (pid, "/vm.json")).collect();
    for _ in 0..TICKS {
        assert_eq!(update(&mut configs, &files), []);
        if (1..=100).all(|pid| configs.get((pid, 5000)).is_some()) {
            break;
        }
    }
    for pid in 1..=100 {
        assert_eq!(configs.get((pid, 5000)).unwrap().unwrap().vcpus, Some(3), "{pid}");
    }
}

#[test]
fn little_is_kept_of_a_large_file() {
    let argv = ["qemu-system-x86_64", "-readconfig", "/f"].map(str::to_owned);
    let vm = cmdline::parse(Hypervisor::Qemu, "qemu-system-x86_64", &argv).unwrap();
    let nic = |nic: &str| format!("[netdev \"{}\"]\n{nic}\n", "n".repeat(1000));
    let tap = |name: String| nic(&format!("type = \"tap\"\nifname = \"{name}\""));
    let taps: String =
        (0..500).map(|at| tap(format!("t{at}")) + &tap("../x".to_owned()) + &tap("t0".to_owned())).collect();
    let file = taps + &nic("type = \"user\"").repeat(500);
    let kept = vm.config_file.unwrap().read(file.as_bytes()).unwrap();
    assert_eq!((kept.taps.len(), kept.unmonitored.len()), (MAX_NICS + 1, MAX_NICS + 1));
    assert!(kept.taps.iter().enumerate().all(|(at, tap)| *tap == format!("t{at}")));
    assert_eq!(kept.unmonitored[0].name.len(), 256);
}

#[test]
fn failures_look_all_the_same() {
    let fixture = Fixture::new();
    put(&fixture, 1..=4, 0);
    let mut configs = ConfigFiles::new(fixture.host(), Workers::default());
    update(&mut configs, &[(1, "/none"), (2, "/vm.json/x"), (3, "/secret"), (4, "/")]);
    for pid in 1..=4 {
        let problem = configs.get((pid, 5000)).unwrap().unwrap_err().to_string();
        assert_eq!(problem, format!("process {pid}: its configuration file cannot be used"));
    }
}

#[test]
fn hanging_files_cost_one_user_alone() {
    let fixture = Fixture::new();
    let workers = Workers::default();
    let mut configs = ConfigFiles::new(fixture.host(), workers.clone());
    let me = rustix::process::getuid().as_raw();
    let (greedy, modest) = (me + 1000, me + 1001);
    put(&fixture, 1..=2, greedy);
    put(&fixture, [3], modest);
    // As if files of this user hang.
    let held: Vec<_> = std::iter::from_fn(|| workers.try_permit(Some(greedy))).collect();
    let files = [(1, "/vm.json"), (2, "/vm.json"), (3, "/vm.json")];
    assert_eq!(held.len(), 4);
    assert_eq!(update(&mut configs, &files), [(Some(greedy), 2)]);
    assert!(configs.get((1, 5000)).is_none() && configs.get((3, 5000)).is_some());
    drop(held);
    assert_eq!(update(&mut configs, &files), []);
    assert!(configs.get((1, 5000)).is_some());
}
