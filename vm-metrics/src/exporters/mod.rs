//! Who looks: each exporter turns the latest snapshot into its own format. None of them reads anything else.

pub mod json;
pub mod metrics;
pub(crate) mod prometheus;
pub(crate) mod table;
