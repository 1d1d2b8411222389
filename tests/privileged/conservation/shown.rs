//! What one scrape shows of the VMs' network use.

use std::collections::BTreeMap;

use anyhow::Result;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;

use super::books::Key;

/// In the order of [`Numbers`](super::books::Numbers).
const COUNTERS: [&str; 4] = [
    "vm_network_rx_bytes_total",
    "vm_network_rx_packets_total",
    "vm_network_tx_bytes_total",
    "vm_network_tx_packets_total",
];
const INFO: &str = "vm_info";

#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) nics: BTreeMap<Key, [Option<u64>; 4]>,
    pub(crate) pids: BTreeMap<String, u32>,
}

impl Shown {
    pub(crate) fn by(daemon: &Daemon) -> Result<Self> {
        let text = daemon.scrape()?;
        // The rest would only take time to read.
        let wanted = |line: &&str| {
            let line = line.strip_prefix("# TYPE ").unwrap_or(line);
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name == INFO || COUNTERS.contains(&name)
        };
        let lines: String = text.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect();
        let metrics = Metrics::parse(&lines)?;
        let mut shown = Self::default();
        for (index, counter) in COUNTERS.iter().enumerate() {
            for sample in metrics.samples(counter) {
                let label = |name| sample.label(name).unwrap_or_default().to_owned();
                let key = Key { vm: label("instance_id"), tap: label("device"), netns: label("netns") };
                let numbers = shown.nics.entry(key).or_default();
                numbers[index] = Some(sample.value as u64);
            }
        }
        for sample in metrics.samples(INFO) {
            if let (Some(vm), Some(pid)) = (sample.label("instance_id"), sample.label("pid")) {
                shown.pids.insert(vm.to_owned(), pid.parse().unwrap_or_default());
            }
        }
        Ok(shown)
    }
}
