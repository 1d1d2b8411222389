//! The unit of a metric, by the end of its name.

/// Ends of names that say what is counted, without the `_total` of counters.
const UNITS: &[(&str, &str)] = &[
    ("_seconds", "s"),
    ("_bytes", "By"),
    ("_ratio", "1"),
    ("_info", "1"),
    ("_vcpus", "{vcpu}"),
    ("_packets", "{packet}"),
    ("_dropped", "{packet}"),
    ("_errors", "{error}"),
    ("_page_faults", "{fault}"),
    ("_context_switches", "{switch}"),
    ("_threads", "{thread}"),
    ("_bytes_per_second", "By/s"),
    ("_restart_attempts", "{attempt}"),
    ("_starts", "{vm}"),
    ("_ends", "{vm}"),
    ("_periods", "{period}"),
    ("_oom_kills", "{process}"),
    ("_open_files", "{file}"),
    ("_instances", "{instance}"),
    ("_instances_observed", "{instance}"),
    ("_ticks", "{tick}"),
    ("_ticks_late", "{tick}"),
    ("_exports", "{export}"),
];

/// In the code of UCUM; annotations in braces, as the conventions of OpenTelemetry have it.
pub(super) fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    // Split by something: `…_packets_by_protocol` are packets.
    let name = name.split_once("_by_").map_or(name, |(what, _)| what);
    let known = UNITS.iter().find(|(end, _)| name.ends_with(end));
    known.map_or("1", |(_, unit)| unit)
}

/// Times and ratios are fractions, and all else is counted.
pub(super) fn is_whole(name: &str) -> bool {
    unit(name) != "s" && !name.ends_with("_ratio")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_is_its_unit() {
        for (name, expected) in [
            ("vm_cpu_seconds_total", "s"),
            ("vm_metrics_snapshot_age_seconds", "s"),
            ("vm_network_rx_bytes_total", "By"),
            ("vm_memory_rss_bytes", "By"),
            ("vm_memory_utilization_ratio", "1"),
            ("vm_info", "1"),
            ("vm_up", "1"),
            ("hypeman_vm_allocated_vcpus", "{vcpu}"),
            ("vm_network_gso_packets_total", "{packet}"),
            ("vm_network_packets_by_protocol_total", "{packet}"),
            ("vm_network_tx_dropped_total", "{packet}"),
            ("vm_metrics_reader_errors", "{error}"),
            ("vm_page_faults_total", "{fault}"),
            ("vm_context_switches_total", "{switch}"),
            ("vm_threads", "{thread}"),
            ("vm_network_limit_bytes_per_second", "By/s"),
            ("vm_restart_attempts", "{attempt}"),
            ("vm_cgroup_cpu_throttled_periods_total", "{period}"),
            ("vm_cgroup_oom_kills_total", "{process}"),
            ("vm_open_files", "{file}"),
            ("vm_metrics_ticks_late_total", "{tick}"),
            ("vm_metrics_instances_observed", "{instance}"),
            ("vm_metrics_label_budget_exceeded_total", "1"),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }
}
