//! What one scrape shows of the VMs' network use.

use std::collections::{BTreeMap, BTreeSet};

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;

use super::books::Key;

/// In the order of [`books::Numbers`](super::books::Numbers), as far as they are known.
pub(crate) type Numbers = [Option<u64>; 4];

/// In this order.
const COUNTERS: [&str; 4] = [
    "vm_network_rx_bytes_total",
    "vm_network_rx_packets_total",
    "vm_network_tx_bytes_total",
    "vm_network_tx_packets_total",
];
const INFO: &str = "vm_info";
const UP: &str = "vm_up";

#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) nics: BTreeMap<Key, Numbers>,
    pub(crate) pids: BTreeMap<String, u32>,
    /// VMs that have ended.
    ended: BTreeSet<String>,
}

impl Shown {
    pub(crate) fn by(daemon: &Daemon) -> anyhow::Result<Self> {
        let text = daemon.scrape()?;
        // The rest would only take time to read.
        let wanted = |line: &&str| {
            let line = line.strip_prefix("# TYPE ").unwrap_or(line);
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            [INFO, UP].contains(&name) || COUNTERS.contains(&name)
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
        let ended = metrics.samples(UP).filter(|sample| sample.value == 0.0);
        shown.ended = ended.filter_map(|sample| sample.label("instance_id").map(str::to_owned)).collect();
        Ok(shown)
    }

    /// What is shown of the victims. Where a victim's id is free a neighbour may have it, but never a victim's device.
    /// `is_here` says of a network namespace whether its devices are the victims' now: it may have the inode of one in
    /// which a neighbour has ended.
    pub(crate) fn of_victims(
        &self,
        victims: &BTreeSet<String>,
        vmms: &BTreeSet<u32>,
        is_here: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<Key, Numbers>, String> {
        let mut nics = BTreeMap::new();
        for (key, numbers) in &self.nics {
            let is_victim = |pid: Option<&u32>| pid.is_none_or(|pid| vmms.contains(pid));
            if victims.contains(&key.vm) && is_victim(self.pids.get(&key.vm)) {
                nics.insert(key.clone(), *numbers);
            } else if key.netns.is_empty() || is_here(&key.netns) && !self.ended.contains(&key.vm) {
                return Err(format!("{key:?} is shown: a neighbour has a victim's device"));
            }
        }
        Ok(nics)
    }
}
