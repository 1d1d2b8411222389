//! What is a VM, and what is known of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::*;

#[test]
fn one_of_each_hypervisor_the_oldest_first() {
    let fixture = Fixture::with(&[
        Fake {
            pid: 30,
            start: 1,
            args: "qemu-system-x86_64 -name guest=web -uuid u-1 -smp 2 -m 1G",
            taps: &[(20, "tap1"), (9, "tap0")],
            ..Fake::QEMU
        },
        Fake {
            pid: 20,
            start: 2,
            exe: "/opt/cloud-hypervisor-static",
            args: "cloud-hypervisor --kernel k --cpus boot=4 --memory size=2G --api-socket /run/ch-1.sock",
            ..Fake::QEMU
        },
        Fake {
            pid: 10,
            start: 3,
            exe: "/srv/jailer/firecracker/fc-1/root/firecracker-v1.7.0-x86_64",
            args: "firecracker --id fc-1",
            ..Fake::QEMU
        },
    ]);
    let vms = list(&mut fixture.scan(), START);
    let qemu = InstanceInfo {
        name: "web".into(),
        nics: vec![Nic::local("tap0"), Nic::local("tap1")],
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(1 << 30),
        ..vm("u-1", 30, Hypervisor::Qemu)
    };
    let cloud_hypervisor = InstanceInfo {
        allocated_vcpus: Some(4),
        allocated_memory_bytes: Some(2 << 30),
        ..vm("ch-1", 20, Hypervisor::CloudHypervisor)
    };
    let firecracker = vm("fc-1", 10, Hypervisor::Firecracker);
    assert_eq!(vms, [qemu, cloud_hypervisor, firecracker]);
}

#[test]
fn the_pid_names_a_vm_without_id() {
    let fixture = Fixture::with(&[
        Fake { pid: 11, start: 1, args: "kvm", ..Fake::QEMU },
        Fake { pid: 12, start: 2, exe: "/cloud-hypervisor", args: "ch", ..Fake::QEMU },
        Fake { pid: 13, start: 3, exe: "/firecracker", args: "fc --id anonymous-instance", ..Fake::QEMU },
    ]);
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(ids(&vms), ["qemu-11", "cloud-hypervisor-12", "firecracker-13"]);
}

#[test]
fn no_vms() {
    let kernel_thread = Fake { pid: 2, exe: "", args: "", ..Fake::QEMU };
    let zombie = Fake { pid: 3, state: 'Z', ..Fake::QEMU };
    let ending = Fake { pid: 4, args: "", ..Fake::QEMU };
    let helper = Fake { pid: 5, exe: "/usr/bin/qemu-img", args: "qemu-img convert a b", ..Fake::QEMU };
    let script =
        Fake { pid: 6, exe: "/bin/dash", args: "sh /usr/bin/qemu-system-x86_64 -name a", ..Fake::QEMU };
    let jailer =
        Fake { pid: 7, exe: "/usr/bin/jailer", args: "jailer --id a --exec-file /firecracker", ..Fake::QEMU };
    let probe = Fake { pid: 8, args: "qemu-system-x86_64 -S -machine none,accel=kvm:tcg", ..Fake::QEMU };
    let version =
        Fake { pid: 9, exe: "/usr/bin/cloud-hypervisor", args: "cloud-hypervisor --version", ..Fake::QEMU };
    let fixture = Fixture::with(&[kernel_thread, zombie, ending, helper, script, jailer, probe, version]);
    assert_eq!(list(&mut fixture.scan(), START), []);
}

#[test]
fn a_hypervisor_whose_file_was_replaced() {
    let fixture = Fixture::with(&[Fake { exe: "/usr/bin/qemu-system-x86_64 (deleted)", ..Fake::QEMU }]);
    assert_eq!(ids(&list(&mut fixture.scan(), START)), ["web"]);
}

/// A VM that another VM's process has started is one.
#[test]
fn a_fork_is_no_vm() {
    let parent = Fake { taps: &[(5, "tap0")], ..Fake::QEMU };
    let fork = Fake { pid: 101, ppid: 100, taps: &[(5, "tap0")], ..Fake::QEMU };
    let nested = Fake { pid: 102, ppid: 100, start: 6000, args: "kvm -name db", ..Fake::QEMU };
    let fixture = Fixture::with(&[parent, fork, nested]);
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(ids(&vms), ["web", "db"]);
    assert_eq!(vms[0].hypervisor_pid, Some(100));
}

#[test]
fn of_a_daemonizing_qemu_only_the_daemon_counts() {
    let args = "kvm -name web -daemonize";
    let shell = Fake { pid: 50, exe: "/bin/bash", args: "bash", session: 50, ..Fake::QEMU };
    let launcher = Fake { pid: 100, ppid: 50, session: 50, args, ..Fake::QEMU };
    let leader = Fake { pid: 101, ppid: 100, session: 101, state: 'Z', exe: "", args: "", ..Fake::QEMU };
    let daemon = Fake { pid: 102, session: 101, args, ..Fake::QEMU };
    let fixture = Fixture::with(&[shell, launcher, leader, daemon]);
    let mut scan = fixture.scan();
    let vms = list(&mut scan, START);
    assert_eq!((ids(&vms), vms[0].hypervisor_pid), (vec!["web"], Some(102)));
    fixture.end(100);
    fixture.end(101);
    assert_eq!(list(&mut scan, TICK), vms);
}

#[test]
fn taps_in_all_their_shapes() {
    let fixture = Fixture::with(&[Fake {
        // Two queues of tap0, one descriptor that lost its device.
        taps: &[(12, "tap0"), (7, "tap0"), (30, ""), (100, "tap1")],
        ..Fake::QEMU
    }]);
    fixture.descriptor(100, 40, "/dev/net/tun (deleted)", Some("tap2"));
    fixture.descriptor(100, 41, "/srv/jailer/firecracker/a/root/dev/net/tun", Some("tap3"));
    fixture.descriptor(100, 42, "/dev/kvm", Some("odd"));
    fixture.descriptor(100, 43, "/dev/net/tun", None);
    fixture.descriptor(100, 44, "/dev/net/tun", Some("closed"));
    fs::remove_file(fixture.process(100).join("fdinfo/44")).unwrap();
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(taps(&vms[0]), ["tap0", "tap2", "tap3", "tap1"]);
}

#[test]
fn a_tap_name_without_utf8_is_a_problem() {
    let fixture = Fixture::with(&[Fake { taps: &[(7, "tap0")], ..Fake::QEMU }]);
    fixture.descriptor(100, 9, "/dev/net/tun", Some("odd"));
    fs::write(fixture.process(100).join("fdinfo/9"), b"pos:\t0\niff:\todd\xff\n").unwrap();
    let mut scan = fixture.scan();
    for now in [START, TICK] {
        let listing = scan.list_at(now).unwrap();
        assert_eq!(taps(&listing.instances[0]), ["tap0"]);
        assert_eq!(listing.texts(), ["process 100: its TAP \"odd\\xff\" is left out: the name is not UTF-8"]);
    }
    fixture.descriptor(100, 9, "/dev/net/tun", Some("tap1"));
    assert_eq!(taps(&list(&mut scan, 2 * TICK)[0]), ["tap0", "tap1"]);
}

/// A relative path starts in the working directory of the process.
#[test]
fn config_paths_start_in_the_processs_root() {
    let config = r#"{"machine-config": {"vcpu_count": 3, "mem_size_mib": 256}}"#;
    let fc = |pid, args| Fake { pid, start: pid.into(), exe: "/firecracker", args, ..Fake::QEMU };
    let fixture = Fixture::with(&[
        fc(11, "fc --id absolute --config-file /etc/vm.json"),
        fc(12, "fc --id relative --config-file conf/vm.json"),
        fc(13, "fc --id link --config-file /link.json"),
    ]);
    fs::create_dir_all(fixture.path("jail/etc")).unwrap();
    fs::create_dir_all(fixture.path("work/conf")).unwrap();
    fs::write(fixture.path("jail/etc/vm.json"), config).unwrap();
    fs::write(fixture.path("work/conf/vm.json"), config).unwrap();
    // From the host's root there is no such file.
    symlink("/etc/vm.json", fixture.path("jail/link.json")).unwrap();
    for pid in 11..=13 {
        symlink(fixture.path("jail"), fixture.process(pid).join("root")).unwrap();
        symlink(fixture.path("work"), fixture.process(pid).join("cwd")).unwrap();
    }
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(ids(&vms), ["absolute", "relative", "link"]);
    for vm in vms {
        assert_eq!((vm.allocated_vcpus, vm.allocated_memory_bytes), (Some(3), Some(256 << 20)), "{}", vm.id);
    }
}

#[test]
fn a_bad_config_hides_no_vm() {
    let args = "fc --id a --config-file /vm.json";
    let fixture = Fixture::with(&[Fake { exe: "/firecracker", args, ..Fake::QEMU }]);
    symlink(fixture.path("jail"), fixture.process(100).join("root")).unwrap();
    fs::create_dir(fixture.path("jail")).unwrap();
    let config = fixture.path("jail/vm.json");
    let check = || {
        let listing = fixture.scan().list_at(START).unwrap();
        assert_eq!(ids(&listing.instances), ["a"]);
        assert_eq!(listing.instances[0].allocated_vcpus, None);
        assert_eq!(listing.texts(), ["process 100: its configuration file cannot be used"]);
    };
    check();
    fs::write(&config, "{").unwrap();
    check();
    fs::write(&config, vec![b' '; (1 << 20) + 1]).unwrap();
    check();
    fs::remove_file(&config).unwrap();
    let (mode, device) = (Mode::RUSR, makedev(1, 3));
    mknodat(CWD, &config, FileType::CharacterDevice, mode, device).unwrap();
    check();
}

#[test]
fn the_command_line_replaces_unreadable_descriptors() {
    let args = "kvm -name web -netdev tap,ifname=tap0 -netdev tap,ifname=tap0 -netdev tap,ifname=../../etc";
    let fixture = Fixture::with(&[
        Fake { args, taps: &[(9, "tap7")], ..Fake::QEMU },
        Fake { pid: 101, start: 6000, args: "kvm -name db", ..Fake::QEMU },
    ]);
    for pid in [100, 101] {
        fixture.hide_descriptors(pid);
    }
    let mut scan = fixture.scan();
    let listing = without_capabilities(|| scan.list_at(START)).unwrap();
    assert_eq!(listing.instances.iter().map(taps).collect::<Vec<_>>(), [vec!["tap0"], vec![]]);
    let problems = listing.texts();
    assert!(
        problems[0]
            .starts_with("process 100: its TAPs need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (cannot list "),
        "{problems:?}"
    );
    assert!(
        problems[0].ends_with("Permission denied (os error 13)); taken from its command line: tap0"),
        "{problems:?}"
    );
    assert!(problems[1].ends_with("its command line names no TAP either"), "{problems:?}");

    for pid in [100, 101] {
        fs::set_permissions(fixture.process(pid).join("fd"), Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(taps(&list(&mut scan, TICK)[0]), ["tap7"]);
}

#[test]
fn a_long_name_is_cut() {
    let fixture = Fixture::new();
    fixture.put(&Fake::QEMU);
    let cmdline = format!("kvm\0-name\0{}\0", "é".repeat(100_000));
    fs::write(fixture.process(100).join("cmdline"), cmdline).unwrap();
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(
        (vms[0].id.as_str(), vms[0].name.as_str()),
        ("é".repeat(256).as_str(), "é".repeat(256).as_str())
    );
}
