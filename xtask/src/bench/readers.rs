//! The time of each reader and source per VM, according to the daemon's own counters.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use vm_metrics_testkit::metrics_text::Metrics;

use super::{contestant::Contestant, figures::Figures};

/// The prefix of the daemon's own metrics, which do not grow with the VMs.
const OWN: &str = "vm_exporter_";

/// Adds microseconds per VM and run, as time of the wall clock.
pub fn measure(figures: &mut Figures, daemon: &Contestant, window: Duration, vms: u32) -> Result<()> {
    let before = own_metrics(daemon)?;
    thread::sleep(window);
    let after = own_metrics(daemon)?;
    for kind in ["source", "reader"] {
        let (durations, runs) =
            (format!("{OWN}{kind}_duration_seconds_total"), format!("{OWN}{kind}_runs_total"));
        for component in after.samples(&runs).filter_map(|sample| sample.label(kind)) {
            let increase = |metric: &str| {
                let value =
                    |metrics: &Metrics| metrics.value(metric, &[(kind, component)]).unwrap_or_default();
                value(&after) - value(&before)
            };
            let (spent, runs) = (increase(&durations), increase(&runs));
            if runs > 0.0 {
                figures.add(format!("component.{component}"), spent / runs * 1e6 / f64::from(vms));
            }
        }
    }
    Ok(())
}

fn own_metrics(daemon: &Contestant) -> Result<Metrics> {
    let response = daemon.scrape(&[])?;
    let lines = response.text()?.split_inclusive('\n').filter(|line| line.contains(OWN));
    Metrics::parse(&lines.collect::<String>())
}
