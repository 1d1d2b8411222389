//! The cost of `/metrics` after a tick, and once more of the same snapshot.

use std::time::Duration;

use anyhow::{Context, Result};
use vm_metrics_testkit::http::Response;

use super::{Plan, contestant::Contestant, figures::Figures};

/// The key of a format, and the headers of its request.
const FORMATS: [(&str, &[(&str, &str)]); 3] =
    [("text", &[]), ("protobuf", &[("Accept", PROTOBUF)]), ("gzip", &[("Accept-Encoding", "gzip")])];
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// On a busy machine a tick may begin during a scrape. Then the next tick has the next try.
const TRIES: u32 = 20;

/// The label of all samples of a VM.
const OF_VM: &str = "instance_id=\"";

/// Adds samples in microseconds per VM, and the size of the text.
pub fn measure(figures: &mut Figures, plan: &Plan, daemon: &Contestant) -> Result<()> {
    for _ in 0..plan.rounds {
        for (format, headers) in FORMATS {
            let mut costs = None;
            for _ in 0..TRIES {
                costs = costs_after_a_tick(daemon, headers)?;
                if costs.is_some() {
                    break;
                }
            }
            let (first, again) = costs.context("each scrape took longer than the time between two ticks")?;
            let per_vm = |cost: Duration| cost.as_secs_f64() * 1e6 / f64::from(plan.vms);
            figures.add(format!("scrape_first.{format}"), per_vm(first));
            figures.add(format!("scrape_again.{format}"), per_vm(again));
        }
    }
    let response = daemon.scrape(&[])?;
    let of_vms = response.text()?.split_inclusive('\n').filter(|line| line.contains(OF_VM));
    let (series, bytes) = of_vms.fold((0, 0), |(series, bytes), line| (series + 1, bytes + line.len()));
    figures.add("series_per_vm", f64::from(series) / f64::from(plan.vms));
    figures.add("bytes_per_vm", bytes as f64 / f64::from(plan.vms));
    Ok(())
}

/// Returns the CPU time of both scrapes; `None` if a tick began meanwhile.
fn costs_after_a_tick(daemon: &Contestant, headers: &[(&str, &str)]) -> Result<Option<(Duration, Duration)>> {
    let tick = daemon.next_tick()?.tick;
    let start = daemon.cpu_time()?;
    let _: Response = daemon.scrape(headers)?;
    let first = daemon.cpu_time()?;
    let _: Response = daemon.scrape(headers)?;
    let again = daemon.cpu_time()?;
    Ok(daemon.is_between_ticks_since(tick)?.then_some((first - start, again - first)))
}
