//! Answers which device is meant, and in which network namespace it is.
//!
//! `netns` opens and enters namespaces, `namespaces` follows those of VMs, and `devices` has the sockets in each.
//! `device_table` knows each device over ticks, and `moved_device` one that has moved. `rtnetlink` asks about devices, and
//! `events` waits for devices and processes that come and go.

pub(crate) mod device_table;
pub(crate) mod devices;
mod error;
pub mod events;
pub(crate) mod moved_device;
pub(crate) mod namespaces;
pub(crate) mod netns;
pub(crate) mod rtnetlink;

pub use error::NetError;
