//! Checks values that VMMs and files claim: bounds, UUIDs and PCI addresses.

pub mod bounded;
pub mod pci;
pub mod uuid;
