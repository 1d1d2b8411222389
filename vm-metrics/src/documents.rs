//! The documents of the API as the commands read them.

use std::fmt;
use std::time::SystemTime;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, de};

use crate::model::{ComponentKind, ComponentRun, Health, UnmonitoredNic};

/// Limit of VMs: in memory a VM can take a hundred times its text.
const MAX_VMS: usize = 1 << 16;

/// The part of `/api/v1/vms` that the commands show.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vms {
    #[serde(deserialize_with = "rfc3339")]
    pub(crate) taken_at: SystemTime,
    #[serde(deserialize_with = "few")]
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
    pub(crate) unmonitored: Vec<UnmonitoredNic>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Nic {
    pub(crate) device: String,
    pub(crate) source: String,
}

/// The part of `/api/v1/health` that the commands show.
#[derive(Debug, Deserialize)]
pub(crate) struct DaemonReport {
    pub(crate) version: Option<String>,
    #[serde(rename = "parts")]
    pub(crate) components: Vec<Component>,
}

/// One component in the last tick, of this process or of the daemon.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Component {
    pub(crate) kind: ComponentKind,
    pub(crate) name: String,
    pub(crate) state: Health,
    pub(crate) reason: Option<String>,
    pub(crate) errno: Option<i32>,
    pub(crate) items: usize,
    #[serde(default)]
    pub(crate) pinned: Option<bool>,
}

impl From<&ComponentRun> for Component {
    fn from(run: &ComponentRun) -> Self {
        Self {
            kind: run.kind,
            name: run.name.to_owned(),
            state: run.health.state,
            reason: Some(run.health.reason.clone()).filter(|reason| !reason.is_empty()),
            errno: run.health.errno,
            items: run.items,
            pinned: run.pinned,
        }
    }
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}

fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vm>, D::Error> {
    struct VmListVisitor;
    impl<'de> Visitor<'de> for VmListVisitor {
        type Value = Vec<Vm>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_VMS} VMs")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut vms: A) -> Result<Vec<Vm>, A::Error> {
            let mut few = Vec::new();
            while let Some(vm) = vms.next_element()? {
                if few.len() == MAX_VMS {
                    return Err(de::Error::invalid_length(MAX_VMS + 1, &self));
                }
                few.push(vm);
            }
            Ok(few)
        }
    }
    deserializer.deserialize_seq(VmListVisitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_vms_than_fit_are_refused() {
        let of = |count: usize| {
            let vms = vec!["{}"; count].join(",");
            serde_json::from_str::<Vms>(&format!("{{\"taken_at\":\"2026-01-01T00:00:00Z\",\"vms\":[{vms}]}}"))
        };
        assert_eq!(of(MAX_VMS).unwrap().vms.len(), MAX_VMS);
        let error = of(MAX_VMS + 1).unwrap_err().to_string();
        assert!(error.contains("expected at most 65536 VMs"), "{error}");
    }
}
