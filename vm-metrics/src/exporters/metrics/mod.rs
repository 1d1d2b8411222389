//! Every metric as data: name, kind, help, labels, and how its samples follow from a snapshot. The output and
//! `docs/metrics.md` are made from this one table.
//!
//! A new metric is one entry here.

mod cgroup;
mod comings;
mod drops;
mod exports;
mod nic;
mod own;
mod process;
mod shown;
mod vcpu;
mod vm;

use std::fmt::Write as _;

use super::exports::Exports;
pub use shown::Shown;

/// What a series means to whoever adds it up. It decides what is shown of VMs and interfaces that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never falls within one incarnation of what it describes. The last value is shown for the retention.
    Counter,
    /// Says how things are now, and ends with what it describes.
    Gauge,
}

/// One metric, whose samples an `F` gives.
#[derive(Debug)]
pub struct Metric<F = OfSnapshot> {
    /// Follows the prefix and `_`.
    pub name: &'static str,
    pub kind: Kind,
    /// One sentence: what it is, whose view, which unit.
    pub help: &'static str,
    /// Where the number comes from.
    pub origin: &'static str,
    pub labels: &'static [&'static str],
    /// Every sample: the values of the labels, in order, the number, and since when it counts.
    pub samples: F,
}

/// Samples of what a snapshot says.
pub type OfSnapshot = fn(&Shown<'_>, Push<'_>);

/// Samples of how the exporters do.
pub(crate) type OfExports = fn(&Exports, Push<'_>);

/// Takes one sample.
pub type Push<'p> = &'p mut dyn FnMut(&[&str], f64, Since);

/// When a counter was 0, in seconds of Unix time; `None` where nobody knows, and for gauges.
pub type Since = Option<f64>;

/// A group of metrics with one prefix.
#[derive(Debug)]
pub struct Group<F: 'static = OfSnapshot> {
    pub title: &'static str,
    /// `None`: the configured one.
    pub prefix: Option<&'static str>,
    pub metrics: &'static [Metric<F>],
}

/// All there is, in the order of the output.
pub const GROUPS: &[Group] = &[
    Group { title: "VMs", prefix: None, metrics: vm::METRICS },
    Group { title: "Processes of VMs", prefix: None, metrics: process::METRICS },
    Group { title: "vCPUs", prefix: None, metrics: vcpu::METRICS },
    Group { title: "Control groups", prefix: None, metrics: cgroup::METRICS },
    Group { title: "Network interfaces", prefix: None, metrics: nic::METRICS },
    Group { title: "VMs that come and go", prefix: None, metrics: comings::METRICS },
    Group { title: "The daemon itself", prefix: Some(OWN_PREFIX), metrics: own::METRICS },
];

/// What no snapshot tells: how the exporters themselves do.
pub(crate) const EXPORT_GROUPS: &[Group<OfExports>] = &[
    Group { title: "Label budgets", prefix: None, metrics: exports::BUDGETS },
    Group { title: "The push", prefix: Some(OWN_PREFIX), metrics: exports::PUSHES },
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

/// `docs/metrics.md`.
pub fn to_markdown() -> String {
    let mut page = String::from(PAGE_HEAD);
    GROUPS.iter().for_each(|group| table(&mut page, group));
    EXPORT_GROUPS.iter().for_each(|group| table(&mut page, group));
    page
}

fn table<F>(page: &mut String, group: &Group<F>) {
    let _ = write!(page, "\n## {}\n\n{TABLE_HEAD}", group.title);
    for metric in group.metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let name = full_name(group.prefix, "vm", metric.name);
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | {} | {} | {} |",
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
";

const TABLE_HEAD: &str = "\
| metric | kind | labels | what it is | where it comes from |
|---|---|---|---|---|
";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;
    use std::time::{Duration, Instant, SystemTime};

    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use crate::model::*;

    fn cgroup_stats() -> CgroupStats {
        let gauges =
            CgroupStats { memory_bytes: Some(1), memory_limit_bytes: Some(1), ..CgroupStats::default() };
        gauges.with_counters([Some(1); 10])
    }

    fn process_stats(each: Option<u64>) -> ProcessStats {
        ProcessStats::default().zip_with(ProcessStats::default(), |_, _| each, |_, _| each)
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
            process: process_stats(Some(1)),
            vcpus: [0, 1].map(|vcpu| VcpuStats { vcpu, since: Some(1.0), ..VcpuStats::default() }).into(),
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

    fn name_of<F>(group: &Group<F>, metric: &Metric<F>) -> String {
        full_name(group.prefix, "vm", metric.name)
    }

    fn all() -> impl Iterator<Item = (String, &'static Metric)> {
        GROUPS.iter().flat_map(|group| group.metrics.iter().map(|metric| (name_of(group, metric), metric)))
    }

    #[test]
    fn every_metric_is_set_with_all_its_labels() {
        for (name, metric) in all() {
            let mut samples = 0;
            let snapshot = full();
            (metric.samples)(&Shown::new(&snapshot, metric.kind), &mut |labels, _, since| {
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
            (metric.samples)(&Shown::new(&snapshot, metric.kind), &mut |labels, _, _| {
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
            let of = |label| metric.labels.contains(&label);
            for (snapshot, is_of_gone) in [(&ended, of("instance_id")), (&without_nic, of("device"))] {
                let mut samples = 0;
                (metric.samples)(&Shown::new(snapshot, metric.kind), &mut |_, _, _| samples += 1);
                let ends = is_of_gone && metric.kind == Kind::Gauge && metric.name != "running";
                assert_eq!(samples == 0, ends, "{name}");
            }
        }
        let instances = own::METRICS.iter().find(|metric| metric.name == "instances").unwrap();
        (instances.samples)(&Shown::new(&ended, Kind::Gauge), &mut |_, value, _| assert!(value == 0.0));
    }

    #[test]
    fn names_follow_the_conventions() {
        let of_exports = EXPORT_GROUPS.iter().flat_map(|group| {
            group.metrics.iter().map(|metric| (name_of(group, metric), metric.kind, metric.help))
        });
        let mut seen = HashSet::new();
        for (name, kind, help) in all().map(|(name, m)| (name, m.kind, m.help)).chain(of_exports) {
            assert!(seen.insert(name.clone()), "{name} twice");
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
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
        (state.samples)(&Shown::new(&snapshot, Kind::Gauge), &mut |labels, value, _| {
            set.push((labels[2].to_owned(), value));
        });
        let expected = [("not-started", 0.0), ("running", 1.0), ("paused", 0.0), ("stopped", 0.0)];
        assert_eq!(set, expected.map(|(state, value)| (state.to_owned(), value)));
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
        for metric in vm::METRICS
            .iter()
            .chain(process::METRICS)
            .chain(vcpu::METRICS)
            .chain(cgroup::METRICS)
            .chain(nic::METRICS)
            .filter(|metric| !["info", "running"].contains(&metric.name))
        {
            let shown = Shown::new(&snapshot, metric.kind);
            (metric.samples)(&shown, &mut |labels, value, _| panic!("{}{labels:?} = {value}", metric.name));
        }
    }

    /// The names of the fields of a struct, each with the struct in which it alone is 1.
    fn each_alone<T: Serialize + DeserializeOwned>(all: T) -> Vec<(String, T)> {
        let Value::Object(all) = serde_json::to_value(all).unwrap() else { panic!("no struct") };
        let alone = |name: String| {
            let only = serde_json::from_value(json!({ &name: 1 })).unwrap();
            (name, only)
        };
        all.into_iter().map(|(name, _)| alone(name)).collect()
    }

    /// How many samples of this kind a VM has that are not 0.
    fn samples_of(vm: VmStats, kind: Kind) -> usize {
        let snapshot = Snapshot { vms: vec![vm], ..full() };
        let shown = Shown::new(&snapshot, kind);
        let mut samples = 0;
        for metric in [vm::METRICS, process::METRICS, nic::METRICS].into_iter().flatten() {
            if metric.kind == kind {
                (metric.samples)(&shown, &mut |_, value, _| samples += usize::from(value != 0.0));
            }
        }
        samples
    }

    #[test]
    fn each_number_of_a_process_has_a_metric() {
        let vm = |process| VmStats { running: true, process, ..VmStats::default() };
        for (name, process) in each_alone(process_stats(None)) {
            let outlives_it = process.ended(ProcessStats::default()) == process;
            let kind = if outlives_it { Kind::Counter } else { Kind::Gauge };
            let none = samples_of(vm(ProcessStats::default()), kind);
            assert!(samples_of(vm(process), kind) > none, "no {kind:?} shows {name}");
        }
    }

    /// Packets and bytes are in the metrics of what was sent and offered.
    #[test]
    fn each_counter_of_a_direction_has_a_metric() {
        let vm = |rx, tx| {
            let ebpf = Some(EbpfStats { rx, tx, ..EbpfStats::default() });
            let nics = vec![NicStats { ebpf, ..NicStats::default() }];
            VmStats { running: true, nics, ..VmStats::default() }
        };
        for (name, stats) in each_alone(DirectionStats::default()) {
            let expected = if ["packets", "bytes"].contains(&name.as_str()) { 0 } else { 2 };
            assert_eq!(samples_of(vm(stats, stats), Kind::Counter), expected, "{name}");
        }
    }

    #[test]
    fn docs_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, to_markdown()).expect("write docs/metrics.md");
        }
        let page = std::fs::read_to_string(&path).expect("read docs/metrics.md");
        assert!(page == to_markdown(), "docs/metrics.md is old: run with UPDATE_GOLDEN=1");
    }
}
