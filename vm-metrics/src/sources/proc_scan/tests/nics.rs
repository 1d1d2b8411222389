//! NICs that are no TAP.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

impl Fixture {
    /// A node that is not there leaves the name to tell which device it is.
    fn macvtap(&self, node: &str, device: &str) {
        let dir = self.host().macvtap(node);
        fs::create_dir_all(&dir).unwrap();
        symlink(format!("../../../{device}"), dir.join("device")).unwrap();
        fs::write(dir.join("dev"), "246:1\n").unwrap();
    }
}

#[test]
fn macvtaps_are_found_by_their_nodes() {
    let fixture = Fixture::with(&[Fake { taps: &[(9, "vnet0")], ..Fake::default() }]);
    fixture.macvtap("tap7", "macvtap0");
    fixture.macvtap("tap8", "macvtap1");
    for (descriptor, node) in [(10, "tap8"), (11, "tap7"), (12, "tap7"), (13, "tap9")] {
        fixture.descriptor(100, descriptor, &format!("/nowhere/dev/{node}"), None);
    }
    let vms = list(&mut fixture.scan(), START);
    assert_eq!(taps(&vms[0]), ["vnet0", "macvtap1", "macvtap0"]);
}

#[test]
fn a_node_of_another_device_with_the_same_index_is_not_mistaken() {
    let fixture = Fixture::with(&[Fake::default()]);
    fixture.macvtap("tap7", "macvtap0");
    // Its number is not the one that sysfs gives.
    let other = fixture.path("tap7");
    fs::write(&other, "").unwrap();
    fixture.descriptor(100, 10, other.to_str().unwrap(), None);
    assert_eq!(taps(&list(&mut fixture.scan(), START)[0]), [""; 0]);
}
