//! Writes `docs/metrics.md` from the entries.

use std::fmt::Write as _;
use std::path::Path;

use super::super::{EXPORTER_GROUPS, GROUPS, Group, Kind, SeriesGroup, full_name};
use super::{compute, full};

/// `docs/metrics.md`.
fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    costs(&mut page);
    GROUPS.iter().chain(EXPORTER_GROUPS).for_each(|group| table(&mut page, group));
    page
}

/// How many series a VM has in each group.
fn costs(page: &mut String) {
    let snapshot = full();
    let metrics = || GROUPS.iter().flat_map(Group::metrics).filter(|metric| metric.has_label("instance_id"));
    for group in SeriesGroup::OF_METRICS {
        let mut series = 0;
        for metric in metrics().filter(|metric| metric.group == group) {
            compute(metric, &snapshot, &mut |_, _, _| series += 1);
        }
        let _ = writeln!(page, "| `{}` | {series} |", group.name());
    }
}

fn table(page: &mut String, group: &Group) {
    let _ = write!(page, "\n## {}\n\n{TABLE_HEAD}", group.title);
    for metric in group.metrics() {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Amount => "gauge",
        };
        let unit = if metric.unit.is_empty() { String::new() } else { format!("`{}`", metric.unit) };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let name = full_name(group.prefix, "vm", metric.name);
        let _ = writeln!(
            page,
            "| `{name}` | {} | {kind} | {unit} | {} | {} | {} |",
            metric.group.name(),
            labels.join(" "),
            metric.help,
            metric.origin
        );
    }
}

const PAGE_HEAD: &str = "\
# Metrics

Generated from `vm-metrics/src/exporters/metrics`: `UPDATE_GOLDEN=1 cargo test -p vm-metrics --lib docs_page` writes it.

Network metrics speak the **guest's** language: `rx` is what the guest receives, `tx` what it sends. A value that was not
measured has no sample; it is never 0. Counters do not fall while the VM's process and its network device live.
The prefix `vm` is the key `metric_prefix` of the configuration. The metrics of VictoriaMetrics' own servers begin with `vm_`
too. Where one store scrapes both, choose another prefix, for example `metric_prefix = \"guest\"`.

`vm_exporter_*` describe the daemon itself, whatever the prefix is. With the prefix `hypeman_vm` two of them are called as the
Go package calls them: `hypeman_vm_metrics_instances_observed` and `hypeman_vm_metrics_label_budget_exceeded_total`.
`process_*` describe the daemon's process, as every Prometheus client library does.

Metrics with the unit `s` are fractions. All others are whole numbers and exact: up to 2^64 - 1 in the text format and in JSON,
and up to 2^63 - 1 over OTLP. For a larger number OTLP gets 2^63 - 1. The protobuf format of Prometheus has only doubles,
so it rounds whole numbers beyond 2^53.

## Groups

A metric is in one group. `/metrics` shows the group `base` and those of the key `groups` in `[exporters.prometheus]`, the push
those of the key `groups` in `[exporters.otlp]`; none by default, and `[\"all\"]` is every group. JSON and the library have all
numbers. These are the series of a VM with one interface and two vCPUs, if everything is measured. Most VMs have fewer: limits,
tags, states and balloons come from orchestrators and VMMs.

| group | series per VM |
|---|---|
";

const TABLE_HEAD: &str = "\
| metric | group | kind | unit | labels | what it is | where it comes from |
|---|---|---|---|---|---|---|
";

#[test]
fn docs_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page()).expect("write docs/metrics.md");
    }
    let written = std::fs::read_to_string(&path).expect("read docs/metrics.md");
    assert!(written == page(), "docs/metrics.md is old: run with UPDATE_GOLDEN=1");
}
