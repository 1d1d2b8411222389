//! Exporters: each turns the latest snapshot into its own format. None of them reads anything else.

pub mod budget;
#[cfg(feature = "daemon")]
mod config;
mod exporter_stats;
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
mod start;
#[cfg(feature = "daemon")]
pub(crate) mod table;
mod view;

#[cfg(feature = "daemon")]
pub(crate) use config::{ExportersConfig, configure};
#[cfg(feature = "daemon")]
pub(crate) use start::ActiveExporters;
pub(crate) use view::View;
