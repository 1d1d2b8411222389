//! The programs in the kernel, their maps, and the pins that keep both.

pub(crate) mod counters;
pub(crate) mod load;
pub(crate) mod pins;
pub(crate) mod slots;
