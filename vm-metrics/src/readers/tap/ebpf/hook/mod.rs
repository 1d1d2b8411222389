//! Attaches the programs to a TAP, by TCX or by clsact.

pub(crate) mod attach;
pub(crate) mod attached;
mod clsact;
pub(crate) mod filters;
mod links;
mod tcx;
