//! Groups of metrics; an exporter shows those that its configuration names.

use serde::Deserialize;

/// The group of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeriesGroup {
    /// Of no metric: names all groups.
    All,
    /// Always shown: numbers for bills and limits, and all that is not of single VMs.
    #[serde(skip)]
    Base,
    Memory,
    Process,
    Vcpus,
    Cgroup,
    Queues,
    Wire,
    Protocols,
}

impl SeriesGroup {
    /// Those of metrics.
    #[cfg(test)]
    pub const OF_METRICS: [Self; 8] = [
        Self::Base,
        Self::Memory,
        Self::Process,
        Self::Vcpus,
        Self::Cgroup,
        Self::Queues,
        Self::Wire,
        Self::Protocols,
    ];

    /// As the configuration has it.
    #[cfg(test)]
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether an exporter with these groups shows its metrics.
    pub fn is_in(self, groups: &[Self]) -> bool {
        self == Self::Base || groups.contains(&self) || groups.contains(&Self::All)
    }
}
