//! Reads files and finds the users who can change them.

mod bounded_read;
mod mounts;
pub mod operators;
pub mod process_path;
pub mod watched;

pub use self::bounded_read::{path_of, read_kernel, read_located, read_start};
