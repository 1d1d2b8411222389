//! Compares the table in `docs/sources.md` with the rows of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::row::Row;
use super::{FAMILIES, rows};
use crate::fixture::tests_dir;

const HEADER: &str = "| hypervisor | manager | id | name | vCPUs | memory | NICs |";

/// Hypervisor and manager.
type Key = (String, String);

/// Whether vCPUs, memory and NICs are known.
type Columns = [bool; 3];

#[test]
fn docs_and_tests_have_one_table() {
    let documented = documented();
    let managers: BTreeSet<_> = documented.keys().cloned().collect();
    let tested = tested();
    assert_eq!(tested.keys().cloned().collect::<BTreeSet<_>>(), managers);
    for (key, known) in tested {
        assert_eq!(documented[&key], known, "are vCPUs, memory and NICs of {key:?} known?");
    }
}

fn tested() -> BTreeMap<Key, Columns> {
    let mut table = BTreeMap::new();
    for row in FAMILIES.iter().flat_map(|family| rows(family)) {
        let known: &mut Columns = table.entry((hypervisor(&row).to_owned(), row.manager)).or_default();
        let has_nics = !row.expected.nics.is_empty() || !row.expected.unmonitored.is_empty();
        let cells = [row.expected.vcpus.is_some(), row.expected.mebibytes.is_some(), has_nics];
        known.iter_mut().zip(cells).for_each(|(known, cell)| *known |= cell);
    }
    table
}

fn hypervisor(row: &Row) -> &str {
    match row.expected.hypervisor.as_str() {
        "qemu" => "QEMU",
        "cloud-hypervisor" => "Cloud Hypervisor",
        "firecracker" => "Firecracker",
        _ => "any KVM program",
    }
}

fn documented() -> BTreeMap<Key, Columns> {
    let docs = fs::read_to_string(tests_dir().join("../docs/sources.md")).unwrap();
    let table =
        docs.lines().skip_while(|line| *line != HEADER).skip(2).take_while(|line| line.starts_with('|'));
    table.map(row).collect()
}

fn row(line: &str) -> (Key, Columns) {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [hypervisor, manager, _, _, vcpus, memory, nics] = cells[..] else { panic!("{line}") };
    ((hypervisor.to_owned(), manager.to_owned()), [vcpus, memory, nics].map(|cell| !cell.is_empty()))
}
