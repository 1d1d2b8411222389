//! Processes of users who are not trusted, and the work that they may cause.

use super::*;
use crate::model::Trust;

const STRANGER: u32 = 65534;

fn scan_trusting(fixture: &Fixture, trust: Trust) -> ProcScan {
    ProcScan::new(&fixture.context_trusting(trust))
}

/// 1060 VMs of a stranger, and 40 of root.
pub fn put_crowd(fixture: &Fixture, fake: &Fake) {
    for pid in 11..=1110 {
        let uid = if pid <= 1070 { STRANGER } else { 0 };
        fixture.put(&Fake { pid, uid, start: pid.into(), ..*fake });
    }
}

/// Root has all at once, and the stranger a share.
pub fn assert_shares(scan: &mut ProcScan) {
    let of = |listing: &Listing, uid| listing.instances.iter().filter(|vm| vm.uid == Some(uid)).count();
    assert_eq!(of(&scan.list_at(START).unwrap(), 0), 40);
    let listing = with_too_many_vms(scan);
    assert_eq!((of(&listing, STRANGER), of(&listing, 0)), (1024, 40));
}

#[test]
fn a_list_of_users_shuts_others_out() {
    let fake = |pid, uid| Fake { pid, uid, start: pid.into(), ..Fake::QEMU };
    let fixture = Fixture::with(&[fake(11, 0), fake(12, 64055), fake(13, STRANGER)]);
    let pids = |trust| {
        let vms = list(&mut scan_trusting(&fixture, trust), START);
        vms.into_iter().filter_map(|vm| vm.hypervisor_pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(Trust::default()), [11, 12, 13]);
    assert_eq!(pids(Trust::only([64055])), [11, 12]);
}

#[test]
fn names_in_files_give_strangers_no_taps() {
    let taps = &[(9, "tap0")];
    let fixture = Fixture::with(&[Fake { uid: STRANGER, taps, ..Fake::QEMU }]);
    let listing = fixture.scan().list_at(START).unwrap();
    assert_eq!(listing.instances[0].nics, []);
    assert!(!listing.processes[&100].is_looked_at);
    let problem = listing.problems[0].to_string();
    assert!(problem.contains("its user is not in [trust]"), "{problem}");
    let trusting = list(&mut scan_trusting(&fixture, Trust::only([STRANGER])), START);
    assert_eq!(trusting[0].nics, [Nic::local("tap0")]);
}

#[test]
fn a_strangers_namespace_is_not_believed() {
    let pod = "0a1b2c3d-1111-4222-8333-444455556666";
    let args = "qemu-kvm -name team-a_web -object file=/var/run/kubevirt-private/master-key.aes";
    let fixture = Fixture::with(&[Fake { uid: STRANGER, args, ..Fake::QEMU }]);
    fixture.cgroup(100, &format!("/kubepods/pod{pod}/x"));
    let vm = |trust| list(&mut scan_trusting(&fixture, trust), START).remove(0);
    let stranger = vm(Trust::default());
    assert_eq!((stranger.namespace, stranger.pod_uid.as_deref()), (None, Some(pod)));
    assert_eq!(vm(Trust::only([STRANGER])).namespace.as_deref(), Some("team-a"));
}

#[test]
fn only_untrusted_users_have_a_share_of_vms() {
    let fixture = Fixture::new();
    put_crowd(&fixture, &Fake::QEMU);
    assert_shares(&mut fixture.scan());
}

/// As subordinate ids give an attacker as many users.
#[test]
fn of_too_many_users_the_oldest_vms_stay() {
    let fixture = Fixture::new();
    for pid in 11..=1110 {
        fixture.put(&Fake { pid, uid: 100_000 + pid, start: pid.into(), ..Fake::QEMU });
    }
    let listing = with_too_many_vms(&mut fixture.scan());
    let pids: Vec<_> = listing.instances.iter().filter_map(|vm| vm.hypervisor_pid).collect();
    assert_eq!((pids.len(), pids[0]), (1024, 11));
}

#[test]
fn a_process_without_time_for_it_waits() {
    let fixture = Fixture::new();
    let mut scan = fixture.scan();
    list(&mut scan, START);
    scan.looks.used(Some(STRANGER), Duration::from_secs(1));
    fixture.put(&Fake { uid: STRANGER, ..Fake::QEMU });
    fixture.put(&Fake { pid: 101, args: "kvm -name root", ..Fake::QEMU });
    let listing = scan.list_at(TICK).unwrap();
    assert_eq!(ids(&listing.instances), ["root"]);
    assert_eq!(overuse(&listing), [(Some(STRANGER), "processes", 1)]);
    assert_eq!(ids(&list(&mut scan, 60 * TICK)), ["web", "root"], "the time is paid for");
}

#[test]
fn what_a_named_process_holds_is_evidence() {
    let taps = &[(9, "tap0")];
    let fixture = Fixture::with(&[Fake { exe: "/bin/vmm", args: "vmm", taps, ..Fake::QEMU }]);
    let mut scan = fixture.scan();
    assert!(scan.list_at(START).unwrap().processes.is_empty());
    scan.named(&[100]);
    let listing = scan.list_at(TICK).unwrap();
    assert_eq!((listing.instances.len(), &listing.processes[&100].nics[..]), (0, &[Nic::local("tap0")][..]));
    scan.named(&[]);
    assert!(scan.list_at(2 * TICK).unwrap().processes.is_empty());
}

#[test]
fn an_endless_command_line_hides_no_vm() {
    for (exe, id) in [
        ("/bin/qemu-system-x86_64", "qemu-100"),
        ("/bin/cloud-hypervisor", "cloud-hypervisor-100"),
        ("/bin/firecracker", "firecracker-100"),
    ] {
        let fixture = Fixture::with(&[Fake { exe, ..Fake::QEMU }]);
        let words = |count: usize| "vmm\0".to_owned() + &"-smp\x004\0".repeat(count);
        for line in [words(2048), words(1 << 17), format!("vmm\0-smp\0{}\0", "a,".repeat(1 << 17))] {
            fs::write(fixture.process(100).join("cmdline"), line).unwrap();
            let listing = fixture.scan().list_at(START).unwrap();
            let [vm] = &listing.instances[..] else { panic!("{:?}", listing.instances) };
            let found = (vm.id.as_str(), vm.allocated_vcpus, vm.allocated_memory_bytes);
            assert_eq!(found, (id, None, None));
            let problem = listing.problems.first().expect("a problem").to_string();
            assert!(problem.contains("more than 4096 words or 262144 bytes"), "{problem}");
        }
        fs::write(fixture.process(100).join("cmdline"), words(2047)).unwrap();
        assert_eq!(fixture.scan().list_at(START).unwrap().problems.len(), 0, "as many as may be read");
    }
}

#[test]
fn a_copy_of_the_parent_hides_no_vm() {
    let parent = Fake::QEMU;
    let child = Fake { pid: 101, ppid: 100, start: 6000, ..Fake::QEMU };
    let fixture = Fixture::with(&[parent, child]);
    assert_eq!(list(&mut fixture.scan(), START).len(), 1, "a fork");
    for (pid, directory) in [(100, "copy"), (101, "bin")] {
        let program = fixture.path(directory).join("qemu-system-x86_64");
        fs::create_dir(fixture.path(directory)).unwrap();
        fs::write(&program, "").unwrap();
        let exe = fixture.process(pid).join("exe");
        fs::remove_file(&exe).unwrap();
        std::os::unix::fs::symlink(program, exe).unwrap();
    }
    let pids: Vec<_> = list(&mut fixture.scan(), START).iter().map(|vm| vm.hypervisor_pid).collect();
    assert_eq!(pids, [Some(100), Some(101)]);
}

#[test]
fn looks_at_heirs_have_a_budget() {
    let vm = Fake { taps: &[(9, "tap0")], ..Fake::QEMU };
    let child = |pid| Fake { pid, ppid: 100, uid: STRANGER, exe: "/bin/sh", args: "sh", ..Fake::QEMU };
    let fixture = Fixture::with(&[vm, child(101)]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    fixture.put(&Fake::QEMU);
    scan.looks.used(Some(STRANGER), Duration::from_secs(1));
    let listing = scan.list_at(TICK).unwrap();
    assert_eq!(listing.instances[0].nics, [Nic::local("tap0")], "it may be the child's");
    assert!(overuse(&listing).contains(&(Some(STRANGER), "processes", 1)));
    assert_eq!(list(&mut scan, 61 * TICK)[0].nics, [], "the time is paid for");
}
