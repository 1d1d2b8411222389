//! Who looks: each exporter turns the latest snapshot into its own format. None of them reads anything else.

pub mod budget;
#[cfg(feature = "daemon")]
mod configured;
mod exports;
pub(crate) mod families;
#[cfg(feature = "daemon")]
pub(crate) mod json;
pub(crate) mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "daemon")]
mod otlp;
#[cfg(feature = "daemon")]
pub(crate) mod prometheus;
#[cfg(feature = "daemon")]
mod running;
#[cfg(feature = "daemon")]
pub(crate) mod table;
mod view;

#[cfg(feature = "daemon")]
pub(crate) use configured::{Configured, configure};
#[cfg(feature = "daemon")]
pub(crate) use running::Running;
pub(crate) use view::View;
