//! The push to an OpenTelemetry collector, with the instruments of the library.
//!
//! One thread collects and sends the latest snapshot, another serves the network. So neither a tick nor a scrape waits for
//! a collector. A failed push is not kept: counters are cumulative, so the next push has them.

mod chunks;
mod config;
mod environment;
mod http_client;
mod push_loop;
mod pusher;
mod reporting_exporter;
mod tls;

pub(crate) use config::{OtlpConfig, configure};
pub(crate) use pusher::{PushError, Pusher};
