//! VMs of programs that are not known by name.

use std::fs;

use super::*;
use crate::model::{ProgramName, Trust};

pub const CROSVM: Fake = Fake { exe: "/opt/crosvm", args: "crosvm run", taps: &[(9, "tap0")], ..Fake::QEMU };

impl Fixture {
    /// On a kernel with KVM.
    pub fn of_kvm(processes: &[Fake]) -> Self {
        let fixture = Self::with(processes);
        fs::create_dir_all(fixture.host().kvm()).unwrap();
        fixture
    }

    pub fn holds_vm(&self, pid: u32, vcpus: u32) {
        self.descriptor(pid, 3, "/dev/kvm", None);
        self.descriptor(pid, 4, "anon_inode:kvm-vm", None);
        for vcpu in 0..vcpus {
            self.descriptor(pid, 20 + vcpu, &format!("anon_inode:kvm-vcpu:{vcpu}"), None);
        }
    }

    /// A thread that waits in a vCPU, or in another call, or runs.
    fn thread(&self, pid: u32, call: &str) {
        let thread = self.process(pid).join("task").join(pid.to_string());
        fs::create_dir_all(&thread).unwrap();
        fs::write(thread.join("syscall"), call).unwrap();
    }

    pub fn runs_vm(&self, pid: u32, vcpus: u32) {
        self.holds_vm(pid, vcpus);
        self.thread(pid, &in_vcpu());
    }

    pub fn cgroup(&self, pid: u32, path: &str) {
        fs::write(self.process(pid).join("cgroup"), format!("0::{path}\n")).unwrap();
    }
}

fn in_vcpu() -> String {
    format!("{} 0x5 0xae80 0x0 0x7f57 0x5 0x0 0x7ffe 0x7f57\n", libc::SYS_ioctl)
}

const IN_POLL: &str = "7 0x7ffe 0x1 0xffffffff 0x0 0x0 0x0 0x7ffe 0x7f57\n";

#[test]
fn a_kvm_vm_of_any_program_is_found() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.runs_vm(100, 3);
    let mut scan = fixture.scan();
    let vms = list(&mut scan, START);
    let nics = vec![Nic::local("tap0")];
    let crosvm = vm("crosvm-100", 100, Hypervisor::Program(ProgramName::new("crosvm")));
    assert_eq!(vms, [InstanceInfo { nics, allocated_vcpus: Some(3), ..crosvm }]);
    // A vCPU that is plugged in later.
    fixture.holds_vm(100, 4);
    fixture.descriptor(100, 30, "/dev/null", None);
    assert_eq!(list(&mut scan, TICK)[0].allocated_vcpus, Some(4));
    fixture.end(100);
    assert_eq!(list(&mut scan, 2 * TICK), []);
}

/// The vCPUs that KVM had made for its parent are no limit.
#[test]
fn an_heir_of_a_program_may_plug_vcpus() {
    let child = Fake { pid: 101, ppid: 100, start: 6000, ..CROSVM };
    let fixture = Fixture::of_kvm(&[CROSVM, child]);
    fixture.runs_vm(100, 3);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    fixture.end(100);
    assert_eq!(list(&mut scan, TICK)[0].hypervisor_pid, Some(101));
    fixture.holds_vm(101, 4);
    let listing = scan.list_at(2 * TICK).unwrap();
    assert_eq!(listing.instances[0].allocated_vcpus, Some(4));
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
}

#[test]
fn a_vm_that_starts_later_is_found() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    let mut scan = fixture.scan();
    for second in 0..100 {
        assert_eq!(list(&mut scan, second * TICK), []);
    }
    fixture.runs_vm(100, 1);
    let found = (100..200).find(|second| !list(&mut scan, *second * TICK).is_empty());
    assert!(found.is_some_and(|second| second <= 131), "{found:?}");
}

#[test]
fn the_id_comes_from_an_own_cgroup() {
    let fixture = Fixture::of_kvm(&[]);
    let container = "0123456789abcdef".repeat(4);
    let inside = format!("/machine.slice/libpod-{container}.scope/container");
    for (pid, ppid, group) in [
        (11, 1, "/system.slice/web.service"),
        (12, 1, "/machine.slice/machine-kvm\\x2ddb.scope"),
        (13, 1, inside.as_str()),
        // Two of a manager, whose unit is not theirs alone.
        (50, 1, "/system.slice/manager.service"),
        (14, 50, "/system.slice/manager.service"),
        (15, 50, "/system.slice/manager.service"),
        (16, 1, "/"),
    ] {
        fixture.put(&Fake { pid, ppid, session: pid, start: pid.into(), taps: &[], ..CROSVM });
        fixture.cgroup(pid, group);
        if pid != 50 {
            fixture.runs_vm(pid, 1);
        }
    }
    fixture.put(&Fake { pid: 1, exe: "/lib/systemd", args: "init", taps: &[], ..CROSVM });
    fixture.cgroup(1, "/init.scope");
    let vms = list(&mut fixture.scan(), START);
    let expected = ["web", "machine-kvm-db", &container, "crosvm-14", "crosvm-15", "crosvm-16"];
    assert_eq!(ids(&vms), expected);
    let names: Vec<_> = vms.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names[3..], ["manager", "manager", "crosvm-16"]);
}

#[test]
fn a_program_that_probes_kvm_is_no_vm() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    let mut scan = fixture.scan();
    list(&mut scan, START);
    // It only creates a VM, or a vCPU that it does not run.
    for vcpus in [0, 1] {
        fixture.holds_vm(100, vcpus);
        fixture.thread(100, IN_POLL);
        for second in 1..70 {
            assert_eq!(list(&mut scan, (70 * vcpus + second) * TICK), []);
        }
    }
    // It runs one and is gone within a second.
    fixture.put(&Fake { pid: 101, ..CROSVM });
    fixture.runs_vm(101, 1);
    assert_eq!(list(&mut scan, 200 * TICK), []);
    fixture.end(101);
    assert_eq!(list(&mut scan, 201 * TICK), []);
    fixture.thread(100, &in_vcpu());
    let found = (202..210).filter(|second| !list(&mut scan, *second * TICK).is_empty());
    let found = found.count();
    assert!((6..8).contains(&found), "after a second or, if a look takes long, two: {found} of 8");
}

#[test]
fn a_busy_thread_alone_is_no_vm() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.holds_vm(100, 1);
    fixture.thread(100, "running\n");
    let mut scan = fixture.scan();
    let found = (0..10).filter(|second| !list(&mut scan, *second * TICK).is_empty());
    assert_eq!(found.collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9], "not at the first look");
    // Another one sleeps in between.
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.holds_vm(100, 1);
    let mut scan = fixture.scan();
    for second in 0..70 {
        fixture.thread(100, if second % 4 == 3 { IN_POLL } else { "running\n" });
        assert_eq!(list(&mut scan, second * TICK), []);
    }
}

#[test]
fn a_fork_of_a_vm_is_no_vm() {
    let fixture = Fixture::of_kvm(&[CROSVM, Fake { pid: 101, ppid: 100, start: 6000, taps: &[], ..CROSVM }]);
    fixture.runs_vm(100, 1);
    fixture.holds_vm(101, 1);
    fixture.thread(101, "running\n");
    let mut scan = fixture.scan();
    for second in 0..70 {
        assert_eq!(ids(&list(&mut scan, second * TICK)), ["crosvm-100"]);
    }
}

#[test]
fn a_known_hypervisor_is_listed_once() {
    let qemu = Fake { pid: 11, start: 1, args: "kvm -name web -smp 2", ..Fake::QEMU };
    let firecracker = Fake { pid: 13, start: 3, exe: "/firecracker", args: "fc --id f", ..Fake::QEMU };
    let build = Fake { pid: 14, start: 4, exe: "/firecracker_of_ours", args: "fc --id g", ..Fake::QEMU };
    let fixture = Fixture::of_kvm(&[qemu, firecracker, build]);
    [11, 13, 14].into_iter().for_each(|pid| fixture.runs_vm(pid, 1));
    let mut scan = fixture.scan();
    for second in [0, 1, 2, 40] {
        let vms = list(&mut scan, second * TICK);
        assert_eq!(ids(&vms), ["web", "f", "g"]);
        assert_eq!(vms[0].allocated_vcpus, Some(2));
        assert_eq!(vms[2].hypervisor, Hypervisor::Firecracker);
    }
}

#[test]
fn a_hypervisor_that_runs_vcpus_is_a_vm() {
    for args in ["kvm -name web -version", "kvm -machine none,accel=kvm"] {
        let fork = Fake { pid: 101, ppid: 100, start: 6000, args, ..Fake::QEMU };
        let fixture = Fixture::of_kvm(&[Fake { args, ..Fake::QEMU }, fork]);
        let mut scan = fixture.scan();
        assert_eq!(list(&mut scan, START), [], "it runs none");
        fixture.runs_vm(100, 2);
        fixture.holds_vm(101, 2);
        fixture.thread(101, "running\n");
        let vms = (1..40).map(|second| list(&mut scan, second * TICK)).find(|vms| !vms.is_empty());
        let vms = vms.expect(args);
        assert_eq!((ids(&vms), vms[0].allocated_vcpus), (vec!["qemu-system-x86_64-100"], Some(2)));
        for descriptor in [3, 4, 20, 21] {
            fs::remove_file(fixture.process(100).join(format!("fd/{descriptor}"))).unwrap();
        }
        fixture.end(101);
        assert_eq!(list(&mut scan, 60 * TICK), []);
    }
}

#[test]
fn a_named_process_is_listed_with_its_vcpus() {
    let fixture = Fixture::of_kvm(&[CROSVM, Fake { pid: 101, start: 6000, ..CROSVM }]);
    fixture.runs_vm(100, 2);
    let mut scan = fixture.scan();
    scan.named(&[100, 101]);
    let vms = list(&mut scan, START);
    assert_eq!((vms.len(), vms[0].allocated_vcpus), (1, Some(2)));
    // The other one starts its VM later.
    fixture.runs_vm(101, 3);
    let vms = (1..10).map(|second| list(&mut scan, second * TICK)).find(|vms| vms.len() == 2);
    assert_eq!(vms.expect("both")[1].allocated_vcpus, Some(3));
}

#[test]
fn a_stranger_has_a_share_of_kvm_vms() {
    let fixture = Fixture::of_kvm(&[]);
    strangers::put_crowd(&fixture, &Fake { taps: &[], ..CROSVM });
    (11..=1110).for_each(|pid| fixture.runs_vm(pid, 1));
    strangers::assert_shares(&mut fixture.scan());
}

#[test]
fn a_list_of_users_shuts_out_kvm_vms() {
    let fixture = Fixture::of_kvm(&[Fake { uid: 1000, ..CROSVM }]);
    fixture.runs_vm(100, 1);
    assert_eq!(list(&mut ProcScan::new(&fixture.context_trusting(Trust::only([7]))), START), []);
}

#[test]
fn a_vm_ends_with_its_vcpus() {
    let fixture = Fixture::of_kvm(&[Fake { taps: &[], ..CROSVM }]);
    fixture.runs_vm(100, 1);
    let mut scan = fixture.scan();
    assert_eq!(list(&mut scan, START).len(), 1);
    for descriptor in [3, 4, 20] {
        fs::remove_file(fixture.process(100).join(format!("fd/{descriptor}"))).unwrap();
    }
    assert_eq!(list(&mut scan, TICK), []);
}

#[test]
fn unreadable_processes_are_one_problem() {
    let fixture = Fixture::of_kvm(&[CROSVM, Fake { pid: 101, ..CROSVM }]);
    (100..=101).for_each(|pid| {
        fixture.runs_vm(pid, 1);
        fixture.hide_descriptors(pid);
    });
    let mut scan = fixture.scan();
    let listing = without_capabilities(|| scan.list_at(START)).unwrap();
    assert_eq!((listing.instances.len(), listing.problems.len()), (0, 1));
    let problem = listing.problems[0].to_string();
    assert!(problem.contains("among 2 processes") && problem.contains("CAP_SYS_PTRACE"), "{problem}");
    // No VM can run here.
    fs::remove_dir(fixture.host().kvm()).unwrap();
    let listing = without_capabilities(|| fixture.scan().list_at(START)).unwrap();
    assert!(listing.problems.is_empty());
}

#[test]
fn the_look_for_kvm_can_be_switched_off() {
    let fixture = Fixture::of_kvm(&[CROSVM]);
    fixture.runs_vm(100, 1);
    let mut scan = ProcScan { finds_kvm: false, ..fixture.scan() };
    assert_eq!(list(&mut scan, START), []);
}
