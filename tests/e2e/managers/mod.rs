//! Tests each row of the table of managers in `docs/sources.md`.
//!
//! A file holds the rows of one family, in that manager's own form of argv and files. All of its VMs run on one host.

mod api;
mod documented;
mod host;
mod row;

use vm_metrics_testkit::wait::{Deadline, SOON};

use self::host::Host;
use self::row::{Cells, Row, Rows};

/// Processes have these pids, in the order of the rows.
const FIRST_PID: u32 = 1001;

/// The rows of all families.
const FAMILIES: &[&str] = &[CLOUD_HYPERVISOR, DESKTOP, FIRECRACKER, INCUS, KATA, KVM, LIBVIRT, PROXMOX, QEMU];

const CLOUD_HYPERVISOR: &str = include_str!("cloud_hypervisor.toml");
const DESKTOP: &str = include_str!("desktop.toml");
const FIRECRACKER: &str = include_str!("firecracker.toml");
const INCUS: &str = include_str!("incus.toml");
const KATA: &str = include_str!("kata.toml");
const KVM: &str = include_str!("kvm.toml");
const LIBVIRT: &str = include_str!("libvirt.toml");
const PROXMOX: &str = include_str!("proxmox.toml");
const QEMU: &str = include_str!("qemu.toml");

fn rows(family: &str) -> Vec<Row> {
    toml::from_str::<Rows>(family).unwrap().vm
}

/// Starts the VMs of a family and compares the cells of each.
fn check(family: &str) {
    let host = Host::new();
    let rows = rows(family);
    for (pid, row) in (FIRST_PID..).zip(&rows) {
        host.put(pid, row);
    }
    let mut found = host.vms();
    // On a busy machine the daemon may read a file or an API later.
    let mut end = Deadline::after(SOON);
    while wrong(&rows, &found).any(|(row, _)| row.is_read_later()) && !end.has_passed() {
        found = host.vms();
    }
    let wrong: Vec<_> = wrong(&rows, &found)
        .map(|(row, found)| format!("{}:\n  expected {:?}\n  found {found:?}", row.title(), row.expected))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(found.len(), rows.len(), "{found:#?}");
}

/// Returns the rows that differ from the expected ones, with the cells of the snapshot.
fn wrong<'a>(
    rows: &'a [Row],
    found: &'a [(u32, Cells)],
) -> impl Iterator<Item = (&'a Row, Option<&'a Cells>)> {
    let cells = |pid| found.iter().find(|(of, _)| *of == pid).map(|(_, cells)| cells);
    let rows = (FIRST_PID..).zip(rows).map(move |(pid, row)| (row, cells(pid)));
    rows.filter(|(row, found)| *found != Some(&row.expected))
}

#[test]
fn qemu_by_hand() {
    check(QEMU);
}

#[test]
fn qemu_of_desktops() {
    check(DESKTOP);
}

#[test]
fn proxmox() {
    check(PROXMOX);
}

#[test]
fn incus_and_lxd() {
    check(INCUS);
}

#[test]
fn libvirt_openstack_and_kubevirt() {
    check(LIBVIRT);
}

#[test]
fn kata() {
    check(KATA);
}

#[test]
fn cloud_hypervisor() {
    check(CLOUD_HYPERVISOR);
}

#[test]
fn firecracker() {
    check(FIRECRACKER);
}

#[test]
fn any_kvm_program() {
    check(KVM);
}
