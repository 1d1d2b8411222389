//! The push to an OpenTelemetry collector: the same instruments as those of the library, on a meter of the daemon's own.
//!
//! It has a thread that collects and sends and one for the network, and looks at the latest snapshot: neither a tick nor a
//! scrape ever waits for a collector. What could not be sent is not kept: counters are cumulative, so the next push has it.

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
