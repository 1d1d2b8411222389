//! The real daemon pushes to a real OTLP receiver. Needs no privileges.

#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

#[cfg(feature = "ebpf")]
mod ebpf;
mod exact;
mod large;
mod naming;
mod push;
mod setup;
mod stores;
mod transport;
mod unavailable;
mod values;
