//! The documents of the API as the commands read them, whether the daemon or this process made them.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, de};

use crate::exporters::json;
use crate::model::{Snapshot, UncountedNic};

/// What the commands show of `/api/v1/vms`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vms {
    #[serde(deserialize_with = "rfc3339")]
    pub(crate) taken_at: SystemTime,
    pub(crate) vms: Vec<Vm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Vm {
    pub(crate) instance_id: String,
    pub(crate) instance_name: String,
    pub(crate) running: Option<bool>,
    pub(crate) hypervisor_pid: Option<u32>,
    pub(crate) allocated_vcpus: Option<u32>,
    pub(crate) allocated_memory_bytes: Option<u64>,
    pub(crate) memory_rss_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) network_rx_bytes: Option<u64>,
    pub(crate) network_tx_bytes: Option<u64>,
    pub(crate) network_rx_packets: Option<u64>,
    pub(crate) network_tx_packets: Option<u64>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) uncounted: Vec<UncountedNic>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Nic {
    pub(crate) device: String,
    pub(crate) source: String,
}

impl Vms {
    pub(crate) fn of(snapshot: &Snapshot) -> serde_json::Result<Self> {
        serde_json::from_slice(&serde_json::to_vec(&json::Vms::of(snapshot))?)
    }
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}
