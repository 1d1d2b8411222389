//! Writes `docs/metrics.md` from the entries.

use std::fmt::Write as _;
use std::path::Path;

use super::super::{EXPORTER_GROUPS, GROUPS, Group, Kind, full_name};

/// `docs/metrics.md`.
fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    GROUPS.iter().chain(EXPORTER_GROUPS).for_each(|group| table(&mut page, group));
    page
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
            "| `{name}` | {kind} | {unit} | {} | {} | {} |",
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
";

const TABLE_HEAD: &str = "\
| metric | kind | unit | labels | what it is | where it comes from |
|---|---|---|---|---|---|
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
