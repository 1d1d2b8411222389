//! The instruments of a program: the nine by default, and more on request.

use std::collections::BTreeSet;

use super::*;
use crate::model::{Nic, NicStats, VmStats};

/// Names behind `hypeman_vm_`, units and attributes, as Go programs have them.
const NINE: [(&str, &str, &str); 9] = [
    ("cpu_seconds_total", "s", VM),
    ("allocated_vcpus", "{vcpu}", VM),
    ("memory_rss_bytes", "By", VM),
    ("memory_vms_bytes", "By", VM),
    ("allocated_memory_bytes", "By", VM),
    ("network_rx_bytes_total", "By", VM),
    ("network_tx_bytes_total", "By", VM),
    ("metrics_instances_observed", "{instance}", ""),
    ("metrics_label_budget_exceeded_total", "", ""),
];

const VM: &str = "instance_id=a,instance_name=web";

/// Shows this VM, of this process, with these interfaces of this host.
fn manager(provider: &SdkMeterProvider, options: OtelOptions) -> Manager {
    let manager = Manager::new();
    manager.set_instance_source(vec![InstanceInfo {
        name: "web".into(),
        nics: vec![Nic::local("lo")],
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(1 << 30),
        ..me("a")
    }]);
    manager.initialize_otel_with(Some(&provider.meter("test")), options);
    manager
}

#[test]
fn the_default_is_the_nine_instruments() {
    let reader = Reader::new();
    let provider = reader.provider();
    let _manager = manager(&provider, OtelOptions::default());
    let shown = reader.read();
    let names: BTreeSet<String> = NINE.iter().map(|(name, ..)| format!("hypeman_vm_{name}")).collect();
    assert_eq!(shown.keys().cloned().collect::<BTreeSet<_>>(), names);
    for (name, unit, attributes) in NINE {
        let (of, points) = &shown[&format!("hypeman_vm_{name}")];
        let shown: Vec<&str> = points.iter().map(|(attributes, _)| attributes.as_str()).collect();
        assert_eq!((of.as_str(), shown), (unit, vec![attributes]), "{name}");
    }
    for metric in reader.metrics().scope_metrics().flat_map(|scope| scope.metrics()) {
        let is_counter = matches!(
            metric.data(),
            AggregatedMetrics::F64(MetricData::Sum(_)) | AggregatedMetrics::U64(MetricData::Sum(_))
        );
        assert_eq!(is_counter, metric.name().ends_with("_total"), "{}", metric.name());
    }
}

#[test]
fn bytes_are_summed_over_interfaces() {
    let nic = |device: &str| NicStats { device: device.into(), ..full().vms[0].nics[0].clone() };
    let vm =
        |net_rx_bytes, nics| VmStats { net_rx_bytes, net_tx_bytes: Some(7), nics, ..full().vms[0].clone() };
    let view = View::default();
    let look = |vm| Instruments::Basic.look(&view, &Snapshot { vms: vec![vm], ..full() });
    let samples = |families: &[Family], name: &str| {
        let family = families.iter().find(|family| family.metric.name == name).unwrap();
        family
            .samples
            .iter()
            .map(|sample| (sample.labels.join(" "), sample.value.as_f64()))
            .collect::<Vec<_>>()
    };
    let families = look(vm(Some(5), vec![nic("tap0"), nic("tap1")]));
    assert_eq!(samples(&families, "network_rx_bytes_total"), [("a b".to_owned(), 5.0)]);
    assert_eq!(samples(&families, "network_tx_bytes_total"), [("a b".to_owned(), 7.0)]);
    let families = look(vm(None, vec![nic("tap0")]));
    assert_eq!(samples(&families, "network_rx_bytes_total"), [], "a part is not known");
}

#[test]
fn each_crossing_of_the_budget_counts() {
    let reader = Reader::new();
    let provider = reader.provider();
    let manager = Manager::new();
    let observed = |ids: &[&str], budget: Option<usize>| {
        // Two looks that follow closely would be one.
        thread::sleep(Duration::from_millis(110));
        let without_process = |id: &&str| InstanceInfo { hypervisor_pid: None, ..me(id) };
        manager.set_instance_source(ids.iter().map(without_process).collect::<Vec<_>>());
        budget.into_iter().for_each(|vms| manager.set_vm_label_budget(vms));
        let shown = reader.read();
        let value = |name: &str| shown[&format!("hypeman_vm_metrics_{name}")].1[0].1;
        (value("instances_observed"), value("label_budget_exceeded_total"))
    };
    manager.set_vm_label_budget(1);
    manager.initialize_otel(Some(&provider.meter("test")));
    assert_eq!(observed(&["a", "b"], None), (2.0, 1.0));
    assert_eq!(observed(&["a"], None), (1.0, 1.0), "only a transition counts");
    assert_eq!(observed(&["a", "b"], Some(2)), (2.0, 1.0), "the budget counts from the next look on");
    assert_eq!(observed(&["a", "b"], Some(1)), (2.0, 2.0));
    assert_eq!(observed(&["a", "b"], Some(0)), (2.0, 2.0), "no limit");
}

#[test]
fn groups_and_all_select_more_instruments() {
    let names = |instruments| {
        let reader = Reader::new();
        let provider = reader.provider();
        let options = OtelOptions { prefix: "vm".to_owned(), instruments, ..OtelOptions::default() };
        let _manager = manager(&provider, options);
        reader.read().into_keys().collect::<BTreeSet<_>>()
    };
    let vms = names(Instruments::Groups(vec![MetricGroup::Vms]));
    let interfaces = names(Instruments::Groups(vec![MetricGroup::Interfaces]));
    let exporter = names(Instruments::Groups(vec![MetricGroup::Exporter]));
    let both = names(Instruments::Groups(vec![MetricGroup::Vms, MetricGroup::Interfaces]));
    assert!(vms.contains("vm_info") && !vms.iter().any(|name| name.contains("network_rx")), "{vms:?}");
    assert!(interfaces.iter().all(|name| name.starts_with("vm_network_")), "{interfaces:?}");
    assert!(exporter.contains("vm_exporter_instances_observed"), "{exporter:?}");
    assert_eq!(both, &vms | &interfaces);
    assert_eq!(names(Instruments::All), &both | &exporter);
}

/// The Go service has a test that forbids it. Dashboards divide.
#[test]
fn no_instrument_is_the_memory_utilization_ratio() {
    let every = [MetricGroup::Vms, MetricGroup::Vcpus, MetricGroup::Interfaces, MetricGroup::Exporter];
    for instruments in [Instruments::Basic, Instruments::All, Instruments::Groups(every.to_vec())] {
        for prefix in ["hypeman_vm", "vm"] {
            let names = instruments.names();
            let shown = names.iter().enumerate().filter(|(_, family)| instruments.contains(family));
            for instrument in Naming::Prometheus.instruments(prefix, shown) {
                assert!(!instrument.name.contains("utilization"), "{}", instrument.name);
            }
        }
    }
}
