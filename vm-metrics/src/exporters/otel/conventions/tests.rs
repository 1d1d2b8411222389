use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::super::{Instruments, units};
use super::*;
use crate::exporters::View;
use crate::exporters::families;
use crate::exporters::metrics;
use crate::exporters::metrics::tests::full;

/// Every metric there is, and those that a program shows by default.
fn every_family() -> Vec<Family> {
    [families::names(), Instruments::Basic.names()].concat()
}

#[test]
fn every_metric_has_one_line() {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    all().flat_map(Convention::parts).for_each(|(metric, _)| *lines.entry(metric).or_default() += 1);
    let metrics: BTreeSet<&str> = every_family().iter().map(|family| family.name).collect();
    let without: Vec<_> = metrics.iter().filter(|metric| !lines.contains_key(*metric)).collect();
    assert!(without.is_empty(), "add a line in exporters/otel/conventions for {without:?}");
    let of_nothing: Vec<_> = lines.keys().filter(|metric| !metrics.contains(*metric)).collect();
    assert!(of_nothing.is_empty(), "no such metrics: {of_nothing:?}");
    assert!(lines.values().all(|count| *count == 1), "twice: {lines:?}");
}

#[test]
fn every_label_has_an_attribute() {
    let families = every_family();
    let known: BTreeSet<&str> = labels::ATTRIBUTES.iter().map(|(label, ..)| *label).collect();
    for family in &families {
        let unknown: Vec<_> = family.labels.iter().filter(|label| !known.contains(*label)).collect();
        assert!(
            unknown.is_empty(),
            "add {unknown:?} of {} to exporters/otel/conventions/labels.rs",
            family.name
        );
    }
    for label in known {
        assert!(families.iter().any(|family| family.labels.contains(&label)), "no metric has {label}");
    }
    for (metric, label, _) in labels::OF_METRIC {
        let has = |family: &Family| family.name == *metric && family.labels.contains(label);
        assert!(families.iter().any(has), "{metric} has no {label}");
    }
}

#[test]
fn attributes_of_an_instrument_differ() {
    for instrument in instruments("vm", every_family().iter().enumerate()) {
        for series in &instrument.series {
            let keys = series.attributes.iter().map(|attribute| attribute.key.as_str());
            let keys: Vec<&str> = keys.chain(series.fixed.iter().map(|fixed| fixed.key.as_str())).collect();
            let different: BTreeSet<_> = keys.iter().collect();
            assert_eq!(keys.len(), different.len(), "{}: {keys:?}", instrument.name);
        }
    }
}

#[test]
fn kinds_and_units_are_those_of_the_metrics() {
    for family in every_family() {
        let has =
            |convention: &&Convention| convention.parts().iter().any(|(metric, _)| *metric == family.name);
        let convention = all().find(has).unwrap();
        let is_counter = family.kind == metrics::Kind::Counter;
        assert_eq!(convention.kind == Kind::Counter, is_counter, "{}", convention.name);
        let unit = units::unit(&family.full_name("vm"));
        if ["s", "By", "{packet}"].contains(&unit) || ["s", "By"].contains(&convention.unit) {
            assert_eq!(convention.unit, unit, "{}", convention.name);
        }
    }
}

/// As the conventions want it.
#[test]
fn no_name_is_taken_or_a_namespace() {
    let instruments = instruments("vm", every_family().iter().enumerate());
    let mut names = BTreeSet::new();
    for Instrument { name, .. } in &instruments {
        assert!(names.insert(name.clone()), "{name} twice");
        assert!(!name.ends_with("_total") && !name.contains("utilization"), "{name}");
    }
    for name in &names {
        let inside = names.iter().find(|other| other.starts_with(&format!("{name}.")));
        assert_eq!(inside, None, "{name} is a namespace");
    }
}

#[test]
fn points_are_those_of_the_metrics() {
    let families = View::default().look(&full(), false);
    let shown = |instruments: Vec<Instrument>| {
        let mut points: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
        for Instrument { name, series, .. } in instruments {
            for series in series {
                series.show(&families, &mut |value, attributes| {
                    let pair = |pair: &KeyValue| format!("{}={}", pair.key, pair.value);
                    let attributes: Vec<String> = attributes.iter().map(pair).collect();
                    points.entry(name.clone()).or_default().push((attributes.join(","), value));
                });
            }
        }
        points
    };
    let by_conventions = shown(instruments("vm", families.iter().enumerate()));
    let by_prometheus =
        shown(super::super::instrument::with_prometheus_names("vm", families.iter().enumerate()));
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
    let families = families::names();
    for convention in all() {
        for (metric, fixed) in convention.parts() {
            let (index, family) =
                families.iter().enumerate().find(|(_, family)| family.name == metric).unwrap();
            let instrument = convention.instrument("vm", &[(index, family)]).unwrap();
            let kind = match convention.kind {
                Kind::Counter => "Counter",
                Kind::UpDownCounter => "UpDownCounter",
                Kind::Gauge => "Gauge",
            };
            let unit = Some(convention.unit).filter(|unit| !unit.is_empty()).map(|unit| format!("`{unit}`"));
            let keys = series(index, family, None)
                .attributes
                .into_iter()
                .map(|attribute| format!("`{}`", attribute.key));
            let fixed = fixed.map(|(key, value)| format!("`{key}={value}`"));
            let attributes: Vec<String> = keys.chain(fixed).collect();
            let (name, unit) = (family.full_name("vm"), unit.unwrap_or_default());
            let _ = writeln!(
                table,
                "| `{name}` | `{}` | {kind} | {unit} | {} |",
                instrument.name,
                attributes.join(" ")
            );
        }
    }
    table
}
