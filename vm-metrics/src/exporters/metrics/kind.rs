//! The kinds of metrics.

/// How the numbers of a metric behave. It decides which VMs and interfaces the metric shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never falls within one incarnation of its VM or interface. The last value is shown for the retention.
    Counter,
    /// The state at this moment. It ends with its VM or interface.
    Gauge,
    /// A gauge whose values of several VMs can be added up.
    Amount,
}
