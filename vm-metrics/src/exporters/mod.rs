//! Who looks: each exporter turns the latest snapshot into its own format. None of them reads anything else.

pub mod budget;
mod configured;
mod exports;
mod families;
pub(crate) mod json;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "otel")]
mod otlp;
#[cfg(not(feature = "otel"))]
#[path = "no_otlp.rs"]
mod otlp;
pub(crate) mod prometheus;
mod running;
pub(crate) mod table;
mod view;

pub(crate) use configured::{Configured, configure};
pub(crate) use running::Running;
pub(crate) use view::View;
