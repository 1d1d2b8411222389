//! Compares pushed and scraped names in a store with Prometheus naming.

use std::collections::{BTreeMap, BTreeSet};

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::victoria_metrics::VictoriaMetrics;
use vm_metrics_testkit::wait::SOON;

use crate::setup::{Setup, often};

/// Metrics of the daemon's own process, which only the scrape has.
const ONLY_SCRAPED: &str = "process_";

/// Prefixes of labels for the sender: resource and scope of the push. A scraper adds `instance` and `job` for the same
/// purpose.
const SENDER: &[&str] = &["host_", "service_", "telemetry_sdk_", "scope_"];

/// The names of the labels by the name of the metric.
type Names = BTreeMap<String, BTreeSet<String>>;

/// One series, with its name as the label `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

#[test]
fn pushed_and_scraped_names_are_equal() {
    let server = VictoriaMetrics::prepare().unwrap().start().unwrap();
    let otlp = often(&format!("http://{}/opentelemetry", server.address()), "");
    let daemon = Setup { otlp, ..Setup::default() }.serve();
    compare(&daemon.daemon, || server.series());
}

/// Compares after two more pushes, because some metrics start with the second one.
pub(crate) fn compare(daemon: &Daemon, series: impl FnOnce() -> anyhow::Result<Vec<Labels>>) {
    let pushes =
        |metrics: &Metrics| metrics.value("vm_exporter_otlp_exports_total", &[("result", "success")]);
    let before = pushes(&daemon.metrics().unwrap()).unwrap();
    daemon
        .wait_for(SOON, "two pushes", |metrics| pushes(metrics).filter(|now| *now >= before + 2.0))
        .unwrap();
    let (scraped, pushed) = (scraped(&daemon.metrics().unwrap()), pushed(series().unwrap()));
    assert!(scraped.len() > 10, "{scraped:?}");
    let only = |these: &Names, those: &Names| -> Vec<String> {
        let differing = these.iter().filter(|(name, labels)| those.get(*name) != Some(*labels));
        differing.map(|(name, labels)| format!("{name}{labels:?}")).collect()
    };
    let (only_scraped, only_pushed) = (only(&scraped, &pushed), only(&pushed, &scraped));
    assert!(only_scraped == only_pushed, "scraped {only_scraped:#?}, pushed {only_pushed:#?}");
}

fn scraped(metrics: &Metrics) -> Names {
    let families = metrics.families().into_iter().filter(|name| !name.starts_with(ONLY_SCRAPED));
    let labels = |name: &str| {
        let samples = metrics.samples(name);
        samples.flat_map(|sample| sample.labels.iter().map(|(name, _)| name.clone())).collect()
    };
    families.map(|name| (name.to_owned(), labels(name))).collect()
}

fn pushed(series: Vec<Labels>) -> Names {
    let mut names = Names::new();
    for mut labels in series {
        let name = labels.remove("__name__").unwrap();
        let is_own = |label: &String| !SENDER.iter().any(|sender| label.starts_with(sender));
        names.entry(name).or_default().extend(labels.into_keys().filter(is_own));
    }
    names
}
