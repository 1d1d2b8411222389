//! Who looks: each exporter turns the latest snapshot into its own format. None of them reads anything else.

pub mod metrics;
pub mod prometheus;
pub mod table;
