//! NICs that are no TAP.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use vm_metrics_testkit::wait::{Deadline, SOON};

use super::*;

impl Fixture {
    /// With the number of the node's character device.
    fn macvtap(&self, node: &str, device: &str, number: (u32, u32)) {
        let dir = self.host().macvtap(node);
        fs::create_dir_all(&dir).unwrap();
        symlink(format!("../../../{device}"), dir.join("device")).unwrap();
        fs::write(dir.join("dev"), format!("{}:{}\n", number.0, number.1)).unwrap();
    }

    /// A file that a process may have open. Only root can make one.
    fn node(&self, name: &str, number: (u32, u32)) -> String {
        let path = self.path(name);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(number.0, number.1)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn unmonitored(vm: &InstanceInfo) -> Vec<String> {
    vm.unmonitored.iter().map(|nic| format!("{} {}", nic.kind.as_str(), nic.name)).collect()
}

#[test]
fn macvtaps_are_found_by_their_numbers() {
    let fixture = Fixture::with(&[Fake { taps: &[(9, "vnet0")], ..Fake::QEMU }]);
    fixture.macvtap("tap7", "macvtap0", (246, 1));
    fixture.macvtap("tap8", "macvtap1", (246, 2));
    let nodes = [("tap8", (246, 2)), ("tap7", (246, 1)), ("tap9", (246, 9))];
    let [second, first, elsewhere] = nodes.map(|(name, number)| fixture.node(name, number));
    for (descriptor, node) in [(10, &second), (11, &first), (12, &first), (13, &elsewhere)] {
        fixture.descriptor(100, descriptor, node, None);
    }
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(taps(&vms[0]), ["vnet0", "macvtap1", "macvtap0"]);
    assert_eq!(unmonitored(&vms[0]), ["macvtap tap9"], "in another namespace");
}

#[test]
fn the_name_of_a_node_is_no_macvtap() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    fixture.macvtap("tap7", "macvtap0", (246, 1));
    // A plain file, a node of another number, and one that cannot be asked.
    let plain = fixture.path("tap7");
    fs::write(&plain, "").unwrap();
    fs::create_dir(fixture.path("other")).unwrap();
    let other = fixture.node("other/tap7", (246, 3));
    for (descriptor, node) in [(10, plain.to_str().unwrap()), (11, &other), (12, "/nowhere/tap7")] {
        fixture.descriptor(100, descriptor, node, None);
    }
    let vms = list(&mut fixture.scan(), START);
    assert_eq!((taps(&vms[0]), unmonitored(&vms[0])), (vec![], vec!["macvtap tap7".to_owned()]));
}

#[test]
fn unmonitored_nics_come_from_arguments_and_descriptors() {
    let args = "kvm -name web -netdev user,id=n0 -device vfio-pci,host=03:00.0 -device vfio-pci,host=04:00.0
                -device vfio-pci,host=05:00.0";
    let fixture = Fixture::with(&[Fake { args, taps: &[(9, "vnet0")], ..Fake::QEMU }]);
    // A network card, a disk, and one that is gone from sysfs; another card that was plugged in later.
    for (address, class) in
        [("0000:03:00.0", "0x020000"), ("0000:04:00.0", "0x010802"), ("0000:3b:00.1", "0x020000")]
    {
        fs::create_dir_all(fixture.host().pci_device(address)).unwrap();
        fs::write(fixture.host().pci_device(address).join("class"), format!("{class}\n")).unwrap();
    }
    for (group, address) in [("12", "0000:03:00.0"), ("13", "0000:04:00.0"), ("14", "0000:3b:00.1")] {
        fs::create_dir_all(fixture.host().iommu_group(group).join(address)).unwrap();
    }
    for (descriptor, node) in
        [(10, "vfio/vfio"), (11, "vfio/12"), (12, "vfio/13"), (13, "vfio/14"), (14, "vhost-vdpa-3")]
    {
        fixture.descriptor(100, descriptor, &format!("/dev/{node}"), None);
    }
    let vms = list(&mut fixture.scan(), START);
    let expected =
        ["vfio 0000:03:00.0", "vfio 0000:05:00.0", "vfio 0000:3b:00.1", "vhost-vdpa vhost-vdpa-3", "user n0"];
    assert_eq!((taps(&vms[0]), unmonitored(&vms[0])), (vec!["vnet0"], expected.map(str::to_owned).to_vec()));
}

#[test]
fn a_vdpa_device_by_descriptor_is_one_nic() {
    let args = "kvm -name web -add-fd set=0,fd=20 -netdev vhost-vdpa,vhostdev=/dev/fdset/0,id=hostnet0
                -netdev vhost-vdpa,vhostdev=/dev/vhost-vdpa-5,id=hostnet1";
    let fixture = Fixture::with(&[Fake { args, ..Fake::QEMU }]);
    fixture.descriptor(100, 20, "/dev/vhost-vdpa-3", None);
    fixture.descriptor(100, 21, "/dev/vhost-vdpa-5", None);
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(unmonitored(&vms[0]), ["vhost-vdpa vhost-vdpa-3", "vhost-vdpa vhost-vdpa-5"]);
    // Without the right to look, the command line alone.
    fixture.hide_descriptors(100);
    let listing = without_capabilities(|| fixture.scan().list_at(START)).unwrap();
    assert_eq!(unmonitored(&listing.instances[0]), ["vhost-vdpa hostnet0", "vhost-vdpa vhost-vdpa-5"]);
}

#[test]
fn left_out_nics_make_the_sum_unknown() {
    let has_more = |fixture: &Fixture| fixture.scan().list_at(START).unwrap().instances[0].has_more_nics;
    let fixture = Fixture::with(&[Fake { taps: &[(9, "tap0")], ..Fake::QEMU }]);
    assert!(!has_more(&fixture));
    fixture.descriptor(100, 10, "/dev/net/tun", Some("odd"));
    fs::write(fixture.process(100).join("fdinfo/10"), b"pos:\t0\niff:\todd\xff\n").unwrap();
    assert!(has_more(&fixture), "a name that is no text");
    for descriptor in 10..266 {
        fixture.descriptor(100, descriptor, "/dev/net/tun", Some(&format!("tap{descriptor}")));
    }
    assert!(has_more(&fixture), "257 of them");
    // Of a stranger, whose descriptors the kernel was not asked about.
    fixture.put(&Fake { uid: 65534, taps: &[(9, "tap0")], ..Fake::QEMU });
    assert!(has_more(&fixture));
}

#[test]
fn numbers_and_names_of_nics_are_bounded() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    let long = "n".repeat(300);
    let users: String = (0..300).map(|at| format!("-netdev\0user,id={at}{long}\0")).collect();
    fs::write(fixture.process(100).join("cmdline"), format!("kvm\0-name\0web\0{users}")).unwrap();
    for descriptor in 10..310 {
        fixture.descriptor(100, descriptor, "/dev/net/tun", Some(&format!("tap{descriptor}")));
    }
    let listing = fixture.scan().list_at(START).unwrap();
    let vm = &listing.instances[0];
    assert_eq!((vm.nics.len(), vm.unmonitored.len()), (256, 256));
    assert!(vm.unmonitored.iter().all(|nic| nic.name.len() == 256));
    assert_eq!(vm.nics[0], Nic::local("tap10"));
    assert_eq!(
        listing.texts(),
        ["process 100: it has more than 256 network interfaces: the others are left out"]
    );
}

/// Anybody may start a program under a hypervisor's name.
#[test]
fn the_longest_command_line_is_read_in_time() {
    let fixture = Fixture::with(&[Fake::QEMU]);
    let options = |at: u32| {
        format!("-netdev\0tap,ifname=t{at}\0-chardev\0null,id=c{at}\0-netdev\0vhost-user,chardev=c{at}\0")
    };
    let options: String = (0..4_000).map(options).collect();
    fs::write(fixture.process(100).join("cmdline"), format!("kvm\0{options}")).unwrap();
    let mut scan = fixture.scan();
    let (began, mut deadline) = (Instant::now(), Deadline::after(3 * SOON));
    // A call does not wait for it for long.
    while scan.list_at(began.elapsed()).unwrap().instances.is_empty() {
        assert!(!deadline.has_passed(), "{:?}", began.elapsed());
    }
}
