mod cmdline;
pub use cmdline::*;
