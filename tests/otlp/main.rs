//! The real daemon pushes to a real OTLP receiver. Needs no rights.

#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod away;
#[cfg(feature = "ebpf")]
mod ebpf;
mod exact;
mod large;
mod naming;
mod pushing;
mod setup;
mod stores;
mod transport;
mod values;
