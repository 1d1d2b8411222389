//! The published network traffic of each VM and device.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;

use super::oracle::Key;

/// In the order of [`oracle::Numbers`](super::oracle::Numbers), with `None` for unknown ones.
pub(crate) type Numbers = [Option<u64>; 4];

#[derive(Debug, Default)]
pub(crate) struct PublishedUse {
    pub(crate) nics: BTreeMap<Key, Numbers>,
    pub(crate) pids: BTreeMap<String, u32>,
    /// Terminated VMs.
    ended: BTreeSet<String>,
}

impl PublishedUse {
    pub(crate) fn by(daemon: &Daemon) -> anyhow::Result<Self> {
        let answer: Value = serde_json::from_slice(&daemon.get("/api/v1/vms", None)?.body)?;
        let mut shown = Self::default();
        for vm in answer["vms"].as_array().context("no list of VMs")? {
            let id = vm["instance_id"].as_str().unwrap_or_default().to_owned();
            if let Some(pid) = vm["hypervisor_pid"].as_u64() {
                shown.pids.insert(id.clone(), pid as u32);
            }
            if vm["running"] == false {
                shown.ended.insert(id.clone());
            }
            for nic in vm["nics"].as_array().context("no list of interfaces")? {
                let tap = nic["device"].as_str().unwrap_or_default().to_owned();
                let netns = nic["netns"].as_u64().map(|inode| inode.to_string()).unwrap_or_default();
                let numbers = [("rx", "bytes"), ("rx", "packets"), ("tx", "bytes"), ("tx", "packets")]
                    .map(|(direction, count)| nic[direction][count].as_u64());
                // A device without a reading has no value.
                if numbers.iter().any(Option::is_some) {
                    shown.nics.insert(Key { vm: id.clone(), tap, netns }, numbers);
                }
            }
        }
        Ok(shown)
    }

    /// Returns the published values of the victims. A neighbour may take a victim's free id, but never a victim's
    /// device. `is_here` decides whether the victims have the devices of a namespace now, because it may reuse the
    /// inode of a neighbour's.
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
