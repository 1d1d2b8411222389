//! The real binary on hosts made of files, from the outside. Needs no rights.

#![expect(clippy::unwrap_used, reason = "a test panics with the place where it happened")]

mod api;
mod cli;
mod errors;
mod faults;
mod fixture;
mod golden;
mod http;
mod limits;
mod managers;
mod operator;
mod processes;
mod push;
mod readme;
mod terminal;
mod vmm_api;
