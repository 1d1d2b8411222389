//! Every metric as data: name, kind, help, labels, and how its samples follow from a snapshot. The output and
//! `docs/metrics.md` are made from this one table.
//!
//! A new metric is one entry here.

mod cgroup;
mod comings;
#[cfg(test)]
mod docs;
mod drops;
mod ebpf;
mod entry;
pub mod exports;
pub mod labels;
mod memory;
pub mod nic;
mod nic_info;
mod number;
mod own;
mod process;
mod snapshot_view;
mod vcpu;
mod vm;

use Samples::{Count, Difference, Real};
pub use entry::{Attribute, Convention, InstrumentKind, Kind, Metric, Samples, Since, Sink, otel, shared};
pub use number::Number;
pub use snapshot_view::SnapshotView;

/// A group of metrics with one prefix.
#[derive(Debug)]
pub struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation has it"))]
    pub title: &'static str,
    /// `None`: the configured one.
    pub prefix: Option<&'static str>,
    /// In the order of the output, file by file.
    pub files: &'static [&'static [Metric]],
}

impl Group {
    pub fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        self.files.iter().copied().flatten()
    }
}

/// All there is, in the order of the output.
pub const GROUPS: &[Group] = &[
    Group { title: "VMs", prefix: None, files: &[vm::METRICS, memory::METRICS] },
    Group { title: "Processes of VMs", prefix: None, files: &[process::METRICS] },
    Group { title: "vCPUs", prefix: None, files: &[vcpu::METRICS] },
    Group { title: "Control groups", prefix: None, files: &[cgroup::METRICS] },
    Group {
        title: "Network interfaces",
        prefix: None,
        files: &[nic::METRICS, ebpf::METRICS, nic_info::METRICS],
    },
    Group { title: "VMs that come and go", prefix: None, files: &[comings::METRICS] },
    Group { title: "The daemon itself", prefix: Some(OWN_PREFIX), files: &[own::METRICS] },
];

/// How the exporters themselves do, which changes also between two snapshots.
pub const EXPORT_GROUPS: &[Group] = &[
    Group { title: "Label budgets", prefix: None, files: &[exports::BUDGETS] },
    Group { title: "The push", prefix: Some(OWN_PREFIX), files: &[exports::PUSHES] },
];

/// First part of the names of the daemon's own metrics, whatever those of VMs are called.
const OWN_PREFIX: &str = "vm_exporter";

/// The Go package's. Its `…_metrics_…` are the daemon's own metrics too, and dashboards know them by that name.
const GO_PREFIX: &str = "hypeman_vm";

/// The exported name of a metric in a group with this prefix, where `configured` is the one of VM metrics.
pub fn full_name(of_group: Option<&str>, configured: &str, name: &str) -> String {
    match (of_group, name.strip_prefix("metrics_")) {
        (None, Some(own)) if configured != GO_PREFIX => format!("{OWN_PREFIX}_{own}"),
        _ => format!("{}_{name}", of_group.unwrap_or(configured)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::{Duration, Instant, SystemTime};

    use crate::exporters::exports::Exports;
    use crate::model::*;

    fn cgroup_stats() -> CgroupStats {
        let gauges =
            CgroupStats { memory_bytes: Some(1), memory_limit_bytes: Some(1), ..CgroupStats::default() };
        gauges.with_counters([Some(1); 10])
    }

    /// A snapshot in which everything is measured.
    pub(crate) fn full() -> Snapshot {
        let counts = FrameCounts { bytes: Some(1), packets: Some(1), dropped: Some(1), errors: Some(1) };
        let nic = NicStats {
            device: "tap0".into(),
            netns: Some(4_026_531_840),
            ifindex: Some(3),
            kind: NicKind::Tap,
            source: NicSource::Ebpf,
            attach: AttachMode::Tcx,
            start_time: Some(1.0),
            rx: counts,
            tx: counts,
            mismatch_bytes: Some(0),
            ebpf: Some(EbpfStats {
                offered: Some(Traffic::default()),
                dropped_ring_full: Some(Traffic::default()),
                dropped_filter: Some(Traffic::default()),
                dropped_qdisc: Some(Traffic::default()),
                ..EbpfStats::default()
            }),
            rx_backlog_packets: Some(0),
            rx_backlog_bytes: Some(0),
            rx_dropped_by_device: Some(0),
            rx_gap_packets: Some(0),
            tx_gap_packets: Some(0),
            earlier: None,
            gone: false,
            since: NicSince { device: Some(1.5), ebpf: Some(2.5) },
        };
        let vm = VmStats {
            instance_id: "a".into(),
            instance_name: "b".into(),
            running: true,
            start_time: Some(1.0),
            cpu_usec: Some(1),
            cpu_wait_usec: Some(1),
            context_switches: Some(1),
            minor_page_faults: Some(1),
            major_page_faults: Some(1),
            threads: Some(1),
            open_files: Some(1),
            vcpus: [0, 1].map(|vcpu| VcpuStats { vcpu, since: Some(1.0), ..VcpuStats::default() }).into(),
            memory_rss_bytes: Some(1),
            memory_vms_bytes: Some(1),
            memory_anon_bytes: Some(1),
            memory_file_bytes: Some(1),
            memory_shmem_bytes: Some(1),
            memory_hugetlb_bytes: Some(1),
            memory_swap_bytes: Some(1),
            memory_pss_bytes: Some(1),
            memory_private_bytes: Some(1),
            disk_read_bytes: Some(1),
            disk_write_bytes: Some(1),
            disk_cancelled_write_bytes: Some(1),
            cgroup: Some(cgroup_stats()),
            allocated_vcpus: Some(1),
            allocated_memory_bytes: Some(1),
            actual_memory_bytes: Some(1),
            state: Some(VmState::Running),
            project: Some("p".into()),
            namespace: Some("n".into()),
            pod_uid: Some("u".into()),
            tags: [("team".to_owned(), "red".to_owned())].into(),
            network_limit_rx_bytes_per_second: Some(1),
            network_limit_tx_bytes_per_second: Some(1),
            restart_attempts: Some(1),
            nics: vec![nic],
            uncounted: vec![UncountedNic { kind: UncountedKind::User, name: "n0".into() }],
            since: VmSince { process: Some(1.0), cpu_wait: Some(1.0) },
            ..VmStats::default()
        };
        let component = |kind, name| ComponentRun {
            kind,
            name,
            health: ComponentHealth::healthy(),
            duration: Some(Duration::from_millis(1)),
            items: 1,
            errors: 0,
            absent: 0,
            lost: Some(0),
            pinned: Some(false),
            overuse: vec![Overuse { uid: Some(1000), resource: "threads", count: 1 }],
            totals: ComponentTotals::default(),
        };
        Snapshot {
            tick: 1,
            taken: Instant::now(),
            taken_at: SystemTime::now(),
            counting_since: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            tick_duration: Duration::from_millis(1),
            ticks_duration: Duration::from_millis(1),
            missed: MissedTicks::default(),
            vms: vec![vm],
            lifecycle: Lifecycle::default(),
            components: vec![
                component(ComponentKind::Source, "proc_scan"),
                component(ComponentKind::Reader, "proc_stat"),
            ],
            overuse: vec![Overuse { uid: Some(1000), resource: "departed", count: 1 }],
        }
    }

    fn name_of(group: &Group, metric: &Metric) -> String {
        full_name(group.prefix, "vm", metric.name)
    }

    fn in_groups(groups: &'static [Group]) -> impl Iterator<Item = (String, &'static Metric)> {
        groups.iter().flat_map(|group| group.metrics().map(|metric| (name_of(group, metric), metric)))
    }

    fn all() -> impl Iterator<Item = (String, &'static Metric)> {
        in_groups(GROUPS)
    }

    /// The samples of a metric that shows nothing of the exporters.
    fn compute(metric: &Metric, snapshot: &Snapshot, sink: Sink<'_, Number>) {
        metric.samples.compute(&SnapshotView::new(snapshot, &Exports::default(), metric.kind), sink);
    }

    #[test]
    fn every_metric_is_set_with_all_its_labels() {
        for (name, metric) in all() {
            let mut samples = 0;
            let snapshot = full();
            compute(metric, &snapshot, &mut |labels, _, since| {
                assert_eq!(labels.len(), metric.labels.len(), "{name}");
                // The kernel does not tell when a group was made.
                let has_since = metric.kind == Kind::Counter && !metric.name.starts_with("cgroup_");
                assert_eq!(since.is_some(), has_since, "{name}");
                samples += 1;
            });
            assert!(samples > 0, "{name} is never set");
        }
    }

    #[test]
    fn no_series_appears_twice() {
        for (name, metric) in all() {
            let mut seen = HashSet::new();
            let snapshot = full();
            compute(metric, &snapshot, &mut |labels, _, _| {
                let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
                assert!(seen.insert(labels.clone()), "{name}{labels:?} twice");
            });
        }
    }

    /// What is shown of a VM in one that has ended, and of an interface that is gone.
    #[test]
    fn only_counters_outlive_what_they_count() {
        let mut ended = full();
        ended.vms[0].running = false;
        let mut without_nic = full();
        without_nic.vms[0].nics[0].gone = true;
        for (name, metric) in all() {
            let of = |label| metric.has_label(label);
            for (snapshot, is_of_gone) in [(&ended, of("instance_id")), (&without_nic, of("device"))] {
                let mut samples = 0;
                compute(metric, snapshot, &mut |_, _, _| samples += 1);
                let ends = is_of_gone && metric.kind != Kind::Counter && metric.name != "running";
                assert_eq!(samples == 0, ends, "{name}");
            }
        }
        let instances = own::METRICS.iter().find(|metric| metric.name == "instances").unwrap();
        compute(instances, &ended, &mut |_, value, _| assert_eq!(value, Number::Count(0)));
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for (name, Metric { kind, help, .. }) in all().chain(in_groups(EXPORT_GROUPS)) {
            assert!(seen.insert(name.clone()), "{name} twice");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        }
    }

    /// As stores with Prometheus naming do: the unit and `_total` go behind a name that does not have them.
    #[test]
    fn no_store_renames_a_metric() {
        let words = [("s", "seconds"), ("By", "bytes"), ("/s", "second")];
        for (name, Metric { kind, unit, samples, .. }) in all().chain(in_groups(EXPORT_GROUPS)) {
            let mut tokens: Vec<&str> = name.split('_').collect();
            let (amount, per) = unit.split_at(unit.find('/').unwrap_or(unit.len()));
            for (part, word) in words {
                assert_eq!(
                    amount == part || per == part,
                    tokens.contains(&word),
                    "{name} has the unit {unit}"
                );
            }
            assert_eq!(*unit == "s", !samples.are_whole(), "{name}");
            tokens.retain(|token| *kind != Kind::Counter || *token != "total");
            tokens.extend((*kind == Kind::Counter).then_some("total"));
            assert_eq!(tokens.join("_"), name);
        }
    }

    #[test]
    fn names_of_the_daemon_have_a_fixed_prefix() {
        let observed = "metrics_instances_observed";
        assert_eq!(full_name(None, "vm", observed), "vm_exporter_instances_observed");
        assert_eq!(full_name(None, GO_PREFIX, observed), "hypeman_vm_metrics_instances_observed");
        assert_eq!(full_name(None, GO_PREFIX, "info"), "hypeman_vm_info");
        assert_eq!(full_name(Some(OWN_PREFIX), GO_PREFIX, "ticks_total"), "vm_exporter_ticks_total");
    }

    /// The Go package's own test forbids it. The two numbers that it was made of are there.
    #[test]
    fn no_exporter_shows_a_memory_ratio() {
        for (name, _) in all() {
            assert!(!name.contains("utilization") && !name.ends_with("_ratio"), "{name}");
        }
    }

    #[test]
    fn a_state_is_one_of_a_set() {
        let state = vm::METRICS.iter().find(|metric| metric.name == "state").unwrap();
        let (snapshot, mut set) = (full(), Vec::new());
        compute(state, &snapshot, &mut |labels, value, _| {
            set.push((labels[2].to_owned(), value));
        });
        let expected = [("not-started", 0), ("running", 1), ("paused", 0), ("stopped", 0)];
        assert_eq!(set, expected.map(|(state, value)| (state.to_owned(), Number::Count(value))));
    }

    #[test]
    fn no_prefix_of_ours_can_be_configured() {
        for prefix in GROUPS.iter().filter_map(|group| group.prefix) {
            assert!(crate::config::OWN_PREFIXES.contains(&prefix), "{prefix}");
        }
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        let mut snapshot = full();
        snapshot.vms = vec![VmStats { instance_id: "a".into(), running: true, ..VmStats::default() }];
        let is_of_vm = |metric: &&Metric| metric.has_label("instance_id");
        let metrics = all().map(|(_, metric)| metric).filter(is_of_vm);
        for metric in metrics.filter(|metric| !["info", "running"].contains(&metric.name)) {
            compute(metric, &snapshot, &mut |labels, value, _| panic!("{}{labels:?} = {value}", metric.name));
        }
    }
}
