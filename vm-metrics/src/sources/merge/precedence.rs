//! Whose word counts, where several sources describe one VM. `docs/sources.md` has the same table.

/// How a source comes to know of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// Somebody wrote it down for this daemon.
    Declared,
    /// An orchestrator told this daemon.
    Pushed,
    /// From what an orchestrator keeps for itself.
    Orchestrator,
    /// From the VMM itself.
    Vmm,
    /// From the process: its command line, and what it holds open.
    Process,
}

/// Of every field but the NICs, the first that knows it is believed.
pub const FACTS: [Precedence; 5] = [
    Precedence::Declared,
    Precedence::Pushed,
    Precedence::Orchestrator,
    Precedence::Vmm,
    Precedence::Process,
];

/// The descriptors of a process say which device it is, in which network namespace; orchestrators and VMMs have a name
/// only, which may mean another device here.
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

    /// Whether its sources are the operator's. The others pass on what a process says of itself.
    pub fn is_operators(self) -> bool {
        match self {
            Self::Declared | Self::Pushed | Self::Orchestrator => true,
            Self::Vmm | Self::Process => false,
        }
    }

    /// Its place among those who tell all else than the NICs; the lowest is believed.
    pub fn fact_rank(self) -> usize {
        rank(self, &FACTS)
    }

    /// Its place among those who tell the NICs.
    pub fn nic_rank(self) -> usize {
        rank(self, &NICS)
    }
}

fn rank(precedence: Precedence, order: &[Precedence]) -> usize {
    order.iter().position(|other| *other == precedence).unwrap_or(order.len())
}
