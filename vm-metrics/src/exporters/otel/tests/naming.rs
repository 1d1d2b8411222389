//! Checks both names of every metric.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::exporters::metrics::{InstrumentKind, Kind};

/// Every metric there is, and those that a program shows by default.
fn every_family() -> Vec<Family> {
    [families::names(), Instruments::Basic.names()].concat()
}

fn instruments(naming: Naming) -> Vec<Instrument> {
    naming.instruments("vm", every_family().iter().enumerate())
}

#[test]
fn attributes_of_an_instrument_differ() {
    for instrument in instruments(Naming::Otel) {
        for series in &instrument.series {
            let keys = series.attributes.iter().map(|attribute| attribute.key.as_str());
            let keys: Vec<&str> = keys.chain(series.fixed.iter().map(|fixed| fixed.key.as_str())).collect();
            let different: BTreeSet<_> = keys.iter().collect();
            assert_eq!(keys.len(), different.len(), "{}: {keys:?}", instrument.name);
        }
    }
}

/// The first metric of an instrument decides its kind, unit, description and number type.
#[test]
fn metrics_of_an_instrument_agree() {
    let metrics = every_family().into_iter().map(|family| family.metric);
    let mut kinds = BTreeMap::new();
    for metric in metrics {
        let otel = metric.otel;
        let is_counter = otel.instrument.map(|kind| kind == InstrumentKind::Counter);
        assert!(is_counter.is_none_or(|is| is == (metric.kind == Kind::Counter)), "{}", metric.name);
        let is_shared = ["s", "By", "{packet}"].contains(&metric.unit);
        assert!(otel.unit.is_none() || !is_shared, "{} has another unit than its metric", metric.name);
        assert_eq!(otel.help.is_some(), otel.attribute.is_some(), "{}", metric.name);
        let own = format!("{:?} {:?} {}", metric.kind, otel.instrument, metric.samples.are_whole());
        let of_metric = (own, otel.unit.unwrap_or(metric.unit), otel.help);
        let of_instrument = kinds.entry(otel.name).or_insert(of_metric.clone());
        assert_eq!(*of_instrument, of_metric, "{}", metric.name);
    }
}

/// As the conventions want it.
#[test]
fn no_name_is_taken_or_a_namespace() {
    let mut names = BTreeSet::new();
    for Instrument { name, .. } in instruments(Naming::Otel) {
        assert!(!name.ends_with("_total") && !name.contains("utilization"), "{name}");
        assert!(names.insert(name.clone()), "{name} twice");
    }
    for name in &names {
        let inside = names.iter().find(|other| other.starts_with(&format!("{name}.")));
        assert_eq!(inside, None, "{name} is a namespace");
    }
}

/// The points of each instrument: attributes and value.
fn points(naming: Naming, families: &[Family]) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut points: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for Instrument { name, series, .. } in naming.instruments("vm", families.iter().enumerate()) {
        for series in series {
            series.show(families, &mut |value, attributes| {
                let pairs = attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value));
                let attributes: Vec<String> = pairs.collect();
                points.entry(name.clone()).or_default().push((attributes.join(","), value.as_f64()));
            });
        }
    }
    points
}

#[test]
fn both_namings_have_the_same_points() {
    let families = View::default().look(&full(), false);
    let [by_conventions, by_prometheus] =
        [Naming::Otel, Naming::Prometheus].map(|naming| points(naming, &families));
    let values = |points: &BTreeMap<String, Vec<(String, f64)>>| {
        let mut values: Vec<f64> = points.values().flatten().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    assert_eq!(values(&by_conventions), values(&by_prometheus));
    let nic = |direction: &str| {
        format!(
            "network.interface.name=tap0,network.io.direction={direction},vm.id=a,vm.name=b,vm.network.namespace=4026531840"
        )
    };
    assert_eq!(by_conventions["vm.network.io"], [(nic("receive"), 1.0), (nic("transmit"), 1.0)]);
    assert_eq!(by_conventions["vm.cpu.time"], [("vm.id=a,vm.name=b".to_owned(), 1e-6)]);
    let vcpus: Vec<&str> = by_conventions["vm.vcpu.time"].iter().map(|(of, _)| of.as_str()).collect();
    assert_eq!(vcpus, ["cpu.logical_number=0,vm.id=a,vm.name=b", "cpu.logical_number=1,vm.id=a,vm.name=b"]);
}

/// The table of both names in the documentation.
#[test]
fn docs_table_is_up_to_date() {
    const BEGIN: &str = "<!-- names: begin -->\n";
    const END: &str = "<!-- names: end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/opentelemetry.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(page == expected, "docs/opentelemetry.md is old: run with UPDATE_GOLDEN=1");
    }
}

fn table() -> String {
    let mut table =
        String::from("| `prometheus` | `otel` | instrument | unit | attributes |\n|---|---|---|---|---|\n");
    for family in families::names() {
        let instruments = Naming::Otel.instruments("vm", [(0, &family)]);
        let [Instrument { name, kind, unit, series, .. }] = &instruments[..] else { panic!("{family:?}") };
        let unit = if unit.is_empty() { String::new() } else { format!("`{unit}`") };
        let keys = series[0].attributes.iter().map(|attribute| format!("`{}`", attribute.key));
        let fixed = family.metric.otel.attribute.map(|(key, value)| format!("`{key}={value}`"));
        let attributes = keys.chain(fixed).collect::<Vec<_>>().join(" ");
        let of_metrics = family.full_name("vm");
        let _ = writeln!(table, "| `{of_metrics}` | `{name}` | {kind:?} | {unit} | {attributes} |");
    }
    table
}
