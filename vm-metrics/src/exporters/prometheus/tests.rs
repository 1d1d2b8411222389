//! Compares the writers with the encoders of the crate and with literal lines.

use std::time::{Duration, Instant};

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricType};
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::exporters::families::{self, Family, Sample};
use crate::exporters::metrics::Kind;
use crate::exporters::metrics::labels::Label;
use crate::exporters::metrics::tests::full;
use crate::model::{FrameCounts, NicSince, NicStats, ProcessStats, VcpuStats, VmSince, VmStats};

/// Whole numbers that the crate's encoders do not round.
fn exact() -> impl Strategy<Value = Option<u64>> {
    of(0..=1_u64 << 53)
}

fn time() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..1e10]
}

/// Names with all characters that any format escapes, and any others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![r#"[\\\\"\n{}=, a\u{e4}\u{1f600}\u{0}]{0,6}"#, any::<String>(), "[a-z0-9-]{0,200}"]
}

prop_compose! {
    fn nic()(
        device in name(),
        netns in of(any::<u64>()),
        [rx_bytes, tx_packets, gap] in [exact(), exact(), exact()],
        mismatch_bytes in of(-(1_i64 << 53)..1 << 53),
        [start_time, of_device, of_ebpf] in [of(time()), of(time()), of(time())],
    ) -> NicStats {
        let mut nic = full().vms[0].nics[0].clone();
        (nic.rx.bytes, nic.tx.packets, nic.rx_gap_packets) = (rx_bytes, tx_packets, gap);
        (nic.mismatch_bytes, nic.start_time) = (mismatch_bytes, start_time);
        NicStats { device, netns, since: NicSince { device: of_device, ebpf: of_ebpf }, ..nic }
    }
}

prop_compose! {
    fn vm()(
        [instance_id, instance_name, tag, tagged] in [name(), name(), name(), name()],
        project in of(name()),
        running: bool,
        [cpu_usec, cpu_wait_usec, memory_rss_bytes, disk_read_bytes] in [exact(), exact(), exact(), exact()],
        [start_time, since, cpu_wait] in [of(time()), of(time()), of(time())],
        times in prop::collection::vec((any::<u32>(), any::<u64>(), of(0.0..1e10)), 0..3),
        nics in prop::collection::vec(nic(), 0..3),
    ) -> VmStats {
        let vm = full().vms.remove(0);
        let vcpu = |(vcpu, cpu_usec, since)| VcpuStats { vcpu, cpu_usec, since, ..VcpuStats::default() };
        let process =
            ProcessStats { cpu_usec, cpu_wait_usec, memory_rss_bytes, disk_read_bytes, ..vm.process };
        VmStats {
            instance_id, instance_name, project, running, start_time, process, nics,
            tags: [(tag, tagged)].into(),
            vcpus: times.into_iter().map(vcpu).collect(),
            since: VmSince { process: since, cpu_wait },
            ..vm
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn writers_equal_the_encoders_of_the_crate(vms in prop::collection::vec(vm(), 0..4)) {
        let snapshot = Snapshot { vms, ..full() };
        let families = families::of_snapshot(&snapshot).into_iter();
        let measured = families.filter(|family| !family.samples.is_empty());
        let messages: Vec<MetricFamily> = measured.map(message).collect();
        for format in Format::ALL {
            let mut expected = Vec::new();
            format.encode(&messages, &mut expected).unwrap();
            let body = render("vm", &snapshot, format);
            prop_assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&expected));
            prop_assert!(body == expected, "{:?}", format);
        }
    }
}

/// Numbers that the crate's encoders round, or that have several notations.
#[test]
fn text_lines_have_exact_numbers_and_escapes() {
    let nic = NicStats {
        device: "a\\b\"c\nd".into(),
        rx: FrameCounts { bytes: Some(u64::MAX), packets: Some((1 << 53) + 1), ..FrameCounts::default() },
        mismatch_bytes: Some(-9_007_199_254_740_993),
        start_time: Some(f64::INFINITY),
        ..NicStats::default()
    };
    let vm = VmStats {
        instance_id: "é{},=".into(),
        running: true,
        start_time: Some(f64::NAN),
        nics: vec![nic],
        ..VmStats::default()
    };
    let body = String::from_utf8(render("vm", &Snapshot { vms: vec![vm], ..full() }, Format::Text)).unwrap();
    for line in [
        r#"vm_start_time_seconds{instance_id="é{},="} NaN"#,
        r#"vm_network_start_time_seconds{instance_id="é{},=",device="a\\b\"c\nd"} inf"#,
        r#"vm_network_rx_bytes_total{instance_id="é{},=",device="a\\b\"c\nd"} 18446744073709551615"#,
        r#"vm_network_rx_packets_total{instance_id="é{},=",device="a\\b\"c\nd"} 9007199254740993"#,
        r#"vm_exporter_source_mismatch_bytes{instance_id="é{},=",device="a\\b\"c\nd"} -9007199254740993"#,
    ] {
        assert!(body.lines().any(|has| has == line), "{line}\n{body}");
    }
}

#[test]
fn an_old_snapshot_is_shown_without_vms() {
    let scrape = |age| {
        let mut snapshot = full();
        snapshot.taken = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
        let exporter = PrometheusExporter::new("vm", View::default(), Ticker::showing(Some(snapshot)).1);
        let (snapshot, stale) = exporter.latest().unwrap();
        let mut body = exporter.of_snapshot(&snapshot, stale, Format::Text).unwrap();
        body.extend(exporter.of_now(Format::Text));
        String::from_utf8(body).unwrap()
    };
    let of_vms = |text: &str| text.lines().any(|l| l.starts_with("vm_") && !l.starts_with("vm_exporter_"));
    let (young, old) = (scrape(1), scrape(31));
    assert!(of_vms(&young) && !of_vms(&old), "{old}");
    assert!(!old.contains("instance_id="), "{old}");
    for text in [young, old] {
        assert!(text.contains("\nvm_exporter_snapshot_timestamp_seconds 1"), "{text}");
        assert!(text.contains("\nvm_exporter_ticks_total 1\n"), "{text}");
    }
}

#[test]
fn the_first_known_format_wins() {
    let protobuf =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let by_prometheus =
        format!("{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1");
    assert_eq!(Format::negotiate(&by_prometheus), Format::Protobuf);
    for accept in ["", "*/*", "text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.4"] {
        assert_eq!(Format::negotiate(accept), Format::Text, "{accept:?}");
    }
    assert_eq!(Format::negotiate(&format!("text/plain,{protobuf};q=0.1")), Format::Text);
    assert_eq!(Format::negotiate("application/vnd.google.protobuf;proto=x;encoding=delimited"), Format::Text);
}

/// The family as the crate has it.
fn message(family: Family) -> MetricFamily {
    let mut message = MetricFamily::default();
    message.set_name(family.full_name("vm"));
    let Family { metric: of, samples, .. } = family;
    message.set_help(of.help.to_owned());
    message.set_field_type(match of.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge | Kind::Amount => MetricType::GAUGE,
    });
    message.set_metric(samples.into_iter().map(|sample| metric(of.kind, of.labels, sample)).collect());
    message
}

fn metric(kind: Kind, labels: &[Label], sample: Sample) -> Metric {
    let pairs = labels.iter().zip(sample.labels).filter(|(_, value)| !value.is_empty());
    let pairs = pairs.map(|(label, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.name.to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(sample.value.as_f64());
            if let Some(since) = sample.since {
                created::set(&mut counter, since);
            }
            metric.set_counter(counter);
        }
        Kind::Gauge | Kind::Amount => {
            let mut gauge = Gauge::default();
            gauge.set_value(sample.value.as_f64());
            metric.set_gauge(gauge);
        }
    }
    metric
}
