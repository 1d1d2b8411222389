//! `cargo xtask`: the one entry point to building, running and testing.

fn main() {}
