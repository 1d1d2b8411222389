//! The unit of a metric, by the end of its name.

/// Ends of names that say what is counted, without the `_total` of counters.
const UNITS: &[(&str, &str)] = &[
    ("_seconds", "s"),
    ("_bytes", "By"),
    ("_vcpus", "{vcpu}"),
    ("_packets", "{packet}"),
    ("_errors", "{error}"),
    ("_instances", "{instance}"),
    ("_instances_observed", "{instance}"),
    ("_ticks", "{tick}"),
    ("_ticks_late", "{tick}"),
    ("_exports", "{export}"),
    ("_runs", "{run}"),
];

/// In the code of UCUM; annotations in braces, as the conventions of OpenTelemetry have it. Nothing for the others: a store
/// with Prometheus naming would put `_ratio` behind a gauge of unit `1`.
pub(super) fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    // Split by something: `…_packets_by_protocol` are packets.
    let name = name.split_once("_by_").map_or(name, |(what, _)| what);
    let known = UNITS.iter().find(|(end, _)| name.ends_with(end));
    known.map_or("", |(_, unit)| unit)
}

/// Times are fractions, and all else is counted.
pub(super) fn is_whole(name: &str) -> bool {
    unit(name) != "s"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::families;
    use crate::exporters::metrics::Kind;

    #[test]
    fn the_end_of_a_name_is_its_unit() {
        for (name, expected) in [
            ("vm_cpu_seconds_total", "s"),
            ("vm_exporter_snapshot_timestamp_seconds", "s"),
            ("vm_network_rx_bytes_total", "By"),
            ("vm_memory_rss_bytes", "By"),
            ("vm_info", ""),
            ("vm_running", ""),
            ("hypeman_vm_allocated_vcpus", "{vcpu}"),
            ("vm_network_gso_packets_total", "{packet}"),
            ("vm_network_packets_by_protocol_total", "{packet}"),
            ("vm_network_tx_dropped_packets_total", "{packet}"),
            ("vm_exporter_reader_errors_total", "{error}"),
            ("vm_exporter_ticks_late_total", "{tick}"),
            ("vm_exporter_instances_observed", "{instance}"),
            ("vm_exporter_label_budget_exceeded_total", ""),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }

    /// As stores with Prometheus naming do: the unit and `_total` go behind a name that does not have them.
    #[test]
    fn no_store_renames_a_metric() {
        let words = [("s", "seconds"), ("By", "bytes")];
        for family in families::names() {
            let name = family.full_name("vm");
            let mut tokens: Vec<&str> = name.split('_').collect();
            let unit = unit(&name);
            assert!(unit.starts_with('{') || unit.is_empty() || words.iter().any(|(of, _)| *of == unit));
            if let Some((_, word)) = words.iter().find(|(of, _)| *of == unit) {
                assert!(tokens.contains(word), "{name} has the unit {unit}");
            }
            tokens.retain(|token| family.kind != Kind::Counter || *token != "total");
            tokens.extend((family.kind == Kind::Counter).then_some("total"));
            assert_eq!(tokens.join("_"), name);
        }
    }
}
