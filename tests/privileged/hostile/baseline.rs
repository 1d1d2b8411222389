//! The lab without attacks: exact bytes, and fakes as intended.

use std::fs;
use std::os::unix::fs::MetadataExt;

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::Scene;
use super::pace::Pace;
use super::user::{ATTACKER, NEIGHBOUR, idle_argv};
use crate::isolation::isolated;

#[test]
fn a_victim_is_exact_without_an_attack() {
    isolated("hostile::baseline::a_victim_is_exact_without_an_attack", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        for daemon in [Scene::daemon, Scene::daemon_of_root] {
            let daemon = daemon(&scene, "");
            let pace = Pace::of(&daemon);
            pace.assert_kept(&daemon, 10, || victim.work(2));
            victim.assert_exact(&daemon);
        }
    });
}

#[test]
fn a_fake_with_its_own_tap_is_published() {
    isolated("hostile::baseline::a_fake_with_its_own_tap_is_published", || {
        let scene = Scene::new();
        let daemon = scene.daemon_of_namespaces("");
        let mut fake = scene.attacker_in_netns("cloud-hypervisor", &["--platform", "uuid=fake"]);
        let fd = fake.open_tap("vmt0").unwrap();
        fake.perform(&Action::Send { fd, frames: 3 }).unwrap();
        let pid = fake.pid().to_string();
        let shown = |metrics: &Metrics| metrics.value("vm_info", &[("instance_id", "fake"), ("pid", &pid)]);
        daemon.wait_for(SOON, "the fake", shown).unwrap();
        let bytes = |metrics: &Metrics| {
            let sent = metrics.value("vm_network_tx_bytes_total", &[("instance_id", "fake")])?;
            (sent >= 1026.0).then_some(())
        };
        daemon.wait_for(SOON, "its bytes", bytes).unwrap();
    });
}

#[test]
fn idle_fakes_of_a_neighbour_are_published() {
    isolated("hostile::baseline::idle_fakes_of_a_neighbour_are_published", || {
        let scene = Scene::new();
        let daemon = scene.daemon("");
        let mut neighbour = scene.tenant_of(NEIGHBOUR, "tenant", &[], Vec::new());
        let program = scene.idle_program("qemu-system-x86_64");
        let argv = idle_argv(&["-name", "guest=fake{n}"]);
        neighbour.perform(&Action::Spawn { program, argv, count: 3 }).unwrap();
        let three = |metrics: &Metrics| {
            let of = |number| metrics.value("vm_running", &[("instance_id", &format!("fake{number}"))]);
            (0..3).all(|number| of(number) == Some(1.0)).then_some(())
        };
        daemon.wait_for(SOON, "three fakes", three).unwrap();
        let directory = scene.directory_of(NEIGHBOUR, "own");
        assert_eq!(fs::metadata(directory).unwrap().uid(), NEIGHBOUR);
        neighbour.perform(&Action::Stop).unwrap();
        let none = |metrics: &Metrics| metrics.samples("vm_running").all(|up| up.value == 0.0).then_some(());
        daemon.wait_for(SOON, "their end", none).unwrap();
    });
}

#[test]
fn a_user_mounts_a_private_file_system() {
    isolated("hostile::baseline::a_user_mounts_a_private_file_system", || {
        let scene = Scene::new();
        let mounted = scene.directory_of(ATTACKER, "mounted");
        let mut attacker = scene.attacker("tenant", &[]);
        attacker.perform(&Action::Unshare { net: false, mount: true, pid: false }).unwrap();
        let file = "tap4".to_owned();
        attacker.perform(&Action::MountFuse { path: mounted.clone(), file, hangs: false }).unwrap();
        let fd = attacker.perform(&Action::OpenFile { path: mounted.join("tap4") }).unwrap();
        let link = format!("/proc/{}/fd/{fd}", attacker.pid());
        assert!(fs::read_link(&link).unwrap().ends_with("mounted/tap4"));
        let refused = fs::metadata(&link).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn a_users_vm_passes_all_actions() {
    isolated("hostile::baseline::a_users_vm_passes_all_actions", || {
        let scene = Scene::new();
        let argv = ["-name", "guest=one", "-uuid", "one"];
        let mut vm = scene.vm_of(ATTACKER, "one", "qemu-system-x86_64", &argv, "vmt0");
        let argv_now = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let mut another = argv.map(str::to_owned).to_vec();
        another.insert(0, "x".to_owned());
        vm.vmm.perform(&Action::RewriteArgv { argv: another }).unwrap();
        assert!(argv_now(vm.vmm.pid()).starts_with("x\0-name\0guest=one\0-uuid\0one\0"));
        let before = vm.vmm.pid();
        vm.vmm.perform(&Action::Fork { parent_stays: true }).unwrap();
        assert_ne!(vm.vmm.pid(), before);
        let program = scene.program("firecracker");
        let argv = vec!["--id".to_owned(), "two".to_owned()];
        vm.vmm.perform(&Action::Exec { program: program.clone(), argv, keep: vec![vm.fd] }).unwrap();
        let pid = vm.vmm.pid();
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), program);
        assert_eq!(argv_now(pid).split_once('\0').unwrap().1, "--id\0two\0");
        vm.work(2);
        assert_eq!((vm.sent, vm.received), (684, 1084));
    });
}
