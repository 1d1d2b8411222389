//! One line per VM, for a terminal.

use std::fmt::Write as _;

use crate::model::{Printable, VmStats};

const HEAD: [&str; 10] = [
    "ID",
    "NAME",
    "VCPUS",
    "CPU s",
    "RSS MiB",
    "MEMORY MiB",
    "NET RX bytes",
    "NET TX bytes",
    "DEVICES",
    "SOURCE",
];

/// The table; a number that was not measured is a dash.
pub fn render(vms: &[VmStats]) -> String {
    let rows: Vec<[String; HEAD.len()]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(vms.iter().map(row)).collect();
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    table
}

fn row(vm: &VmStats) -> [String; HEAD.len()] {
    let mib = |bytes: Option<u64>| or_dash(bytes.map(|bytes| bytes >> 20));
    let devices: Vec<&str> = vm.nics.iter().map(|nic| nic.device.as_str()).collect();
    let mut sources: Vec<&str> = vm.nics.iter().map(|nic| nic.source.as_str()).collect();
    sources.dedup();
    [
        printable(&vm.instance_id),
        printable(&vm.instance_name),
        or_dash(vm.allocated_vcpus),
        or_dash(vm.cpu_seconds().map(|seconds| format!("{seconds:.2}"))),
        mib(vm.memory_rss_bytes),
        mib(vm.allocated_memory_bytes),
        or_dash(vm.net_rx_bytes),
        or_dash(vm.net_tx_bytes),
        or_dash((!devices.is_empty()).then(|| printable(&devices.join(",")))),
        or_dash((!sources.is_empty()).then(|| sources.join(","))),
    ]
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Names come from the command lines of others.
fn printable(text: &str) -> String {
    Printable(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_unknown_is_a_dash() {
        let vm = VmStats {
            instance_id: "a-long-identifier".into(),
            instance_name: "evil\x1b[2J\nforged".into(),
            cpu_usec: Some(1_230_000),
            ..VmStats::default()
        };
        let table = render(&[vm]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].find("NAME"), lines[1].find("evil"));
        assert!(lines[1].contains("1.23") && lines[1].ends_with('-') && !table.contains('\x1b'), "{table}");
        assert!(lines.len() == 2 && lines[1].contains(r"evil\u{1b}[2J\nforged"), "{table}");
    }
}
