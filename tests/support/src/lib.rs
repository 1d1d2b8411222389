//! Real TAPs, network namespaces, guests and servers for the tests and the demo.
pub mod packages;
