//! Ranks the sources that describe one VM. `docs/sources.md` has the same table.

/// The rank of a source, by the origin of its knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// Files and configuration that operators write for this daemon.
    Declared,
    /// Requests of an orchestrator to this daemon.
    Pushed,
    /// Records that an orchestrator keeps for itself.
    Orchestrator,
    /// The API of the VMM.
    Vmm,
    /// The process: its command line and its descriptors.
    Process,
}

/// The order for every field but the NICs: the first known value wins.
pub const FACTS: [Precedence; 5] = [
    Precedence::Declared,
    Precedence::Pushed,
    Precedence::Orchestrator,
    Precedence::Vmm,
    Precedence::Process,
];

/// Descriptors of a process identify a device and its network namespace. Orchestrators and VMMs only have a name, which may
/// mean another device here.
pub const NICS: [Precedence; 5] = [
    Precedence::Declared,
    Precedence::Pushed,
    Precedence::Process,
    Precedence::Orchestrator,
    Precedence::Vmm,
];

impl Precedence {
    #[cfg(test)]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Pushed => "pushed",
            Self::Orchestrator => "orchestrator",
            Self::Vmm => "VMM",
            Self::Process => "process",
        }
    }

    /// Whether its sources are the operator's. The others pass on claims of a process.
    pub fn is_operators(self) -> bool {
        match self {
            Self::Declared | Self::Pushed | Self::Orchestrator => true,
            Self::Vmm | Self::Process => false,
        }
    }

    /// Its rank for all fields but the NICs; the lowest wins.
    pub fn fact_rank(self) -> usize {
        rank(self, &FACTS)
    }

    /// Its rank for the NICs.
    pub fn nic_rank(self) -> usize {
        rank(self, &NICS)
    }
}

fn rank(precedence: Precedence, order: &[Precedence]) -> usize {
    order.iter().position(|other| *other == precedence).unwrap_or(order.len())
}
