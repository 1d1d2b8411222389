//! Runs the real binary on hosts made of files. Needs no privileges.

#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod api;
mod cli;
mod errors;
mod faults;
mod fixture;
mod golden;
mod groups;
mod gzip;
mod http;
mod limits;
mod listen;
mod managers;
mod operator;
mod processes;
mod push;
mod readme;
mod terminal;
mod vmm_api;
