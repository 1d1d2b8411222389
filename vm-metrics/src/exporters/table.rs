//! One line per VM, for a terminal.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::documents::{Vm, Vms};
use crate::model::Printable;

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

const RATES: [&str; 10] = [
    "ID",
    "NAME",
    "VCPUS",
    "CPU %",
    "RSS MiB",
    "MEMORY MiB",
    "RX bit/s",
    "TX bit/s",
    "RX packets/s",
    "TX packets/s",
];

/// The counters of each VM; a number that was not measured is a dash.
pub(crate) fn render(vms: &[Vm]) -> String {
    lines(HEAD, vms.iter().map(row))
}

/// The rates of each VM between two documents; a dash where one of them lacks the number.
pub(crate) fn render_rates(before: &Vms, now: &Vms) -> String {
    let seconds = now.taken_at.duration_since(before.taken_at).unwrap_or_default().as_secs_f64();
    let known: HashMap<&str, &Vm> = before.vms.iter().map(|vm| (vm.instance_id.as_str(), vm)).collect();
    let row = |vm| rates(vm, known.get(vm.instance_id.as_str()).copied().filter(|_| seconds > 0.0), seconds);
    lines(RATES, now.vms.iter().map(row))
}

fn lines<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
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

fn row(vm: &Vm) -> [String; HEAD.len()] {
    let devices: Vec<&str> = vm.nics.iter().map(|nic| nic.device.as_str()).collect();
    let mut sources: Vec<&str> = vm.nics.iter().map(|nic| nic.source.as_str()).collect();
    sources.dedup();
    [
        printable(&vm.instance_id),
        printable(&vm.instance_name),
        or_dash(vm.allocated_vcpus),
        or_dash(vm.cpu_seconds.map(|seconds| format!("{seconds:.2}"))),
        rss(vm),
        mib(vm.allocated_memory_bytes),
        or_dash(vm.network_rx_bytes),
        or_dash(vm.network_tx_bytes),
        or_dash((!devices.is_empty()).then(|| printable(&devices.join(",")))),
        or_dash((!sources.is_empty()).then(|| printable(&sources.join(",")))),
    ]
}

fn rates(vm: &Vm, before: Option<&Vm>, seconds: f64) -> [String; RATES.len()] {
    // A counter that fell is that of another process or device.
    let rate = |counter: fn(&Vm) -> Option<u64>, factor: f64| {
        let passed = counter(vm)?.checked_sub(counter(before?)?)?;
        Some(format!("{:.0}", passed as f64 * factor / seconds))
    };
    let cpu = || {
        let passed = vm.cpu_seconds? - before?.cpu_seconds?;
        (passed >= 0.0).then(|| format!("{:.1}", passed * 100.0 / seconds))
    };
    [
        printable(&vm.instance_id),
        printable(&vm.instance_name),
        or_dash(vm.allocated_vcpus),
        or_dash(cpu()),
        rss(vm),
        mib(vm.allocated_memory_bytes),
        or_dash(rate(|vm| vm.network_rx_bytes, 8.0)),
        or_dash(rate(|vm| vm.network_tx_bytes, 8.0)),
        or_dash(rate(|vm| vm.network_rx_packets, 1.0)),
        or_dash(rate(|vm| vm.network_tx_packets, 1.0)),
    ]
}

/// A VM that has ended has no memory, and is still shown for a while.
fn rss(vm: &Vm) -> String {
    if vm.running == Some(false) { "ended".to_owned() } else { mib(vm.memory_rss_bytes) }
}

fn mib(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| bytes >> 20))
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn columns_line_up_and_unknown_numbers_are_dashes() {
        let vm = Vm {
            instance_id: "a-long-identifier".into(),
            instance_name: "evil\x1b[2J\nforged".into(),
            cpu_seconds: Some(1.23),
            ..Vm::default()
        };
        let table = render(&[vm]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].find("NAME"), lines[1].find("evil"));
        assert!(lines[1].contains("1.23") && lines[1].ends_with('-') && !table.contains('\x1b'), "{table}");
        assert!(lines.len() == 2 && lines[1].contains(r"evil\u{1b}[2J\nforged"), "{table}");
    }

    #[test]
    fn an_ended_vm_is_marked() {
        let vm = |running| Vm { instance_id: "a".into(), running: Some(running), ..Vm::default() };
        let vms = |running| Vms { taken_at: UNIX_EPOCH, vms: vec![vm(running)] };
        for ended in [render(&[vm(false)]), render_rates(&vms(false), &vms(false))] {
            assert!(ended.contains(" ended "), "{ended}");
        }
        assert!(!render(&[vm(true)]).contains("ended"));
    }

    #[test]
    fn rates_are_per_second_between_two_documents() {
        let at = |seconds: u64, cpu: f64, bytes: u64| Vms {
            taken_at: UNIX_EPOCH + Duration::from_secs(seconds),
            vms: vec![Vm {
                instance_id: "a".into(),
                cpu_seconds: Some(cpu),
                network_rx_bytes: Some(bytes),
                network_tx_packets: Some(bytes),
                ..Vm::default()
            }],
        };
        let cells = |before: &Vms, now: &Vms| {
            let table = render_rates(before, now);
            let line = table.lines().nth(1).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        // ID NAME (empty) VCPUS CPU % …
        assert_eq!(
            cells(&at(10, 1.0, 1000), &at(12, 2.5, 1500)),
            ["a", "-", "75.0", "-", "-", "2000", "-", "-", "250"]
        );
        let anew = cells(&at(10, 9.0, 1000), &at(12, 0.5, 0));
        assert_eq!(anew, ["a", "-", "-", "-", "-", "-", "-", "-", "-"], "a counter that fell has no rate");
        let new = cells(&Vms { vms: Vec::new(), ..at(10, 0.0, 0) }, &at(12, 1.0, 8));
        assert_eq!(new[2], "-", "not from the start of the VM");
    }
}
