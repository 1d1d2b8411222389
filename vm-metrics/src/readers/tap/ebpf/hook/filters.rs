//! Removes the clsact filters that a daemon has left.

use std::io;
use std::path::Path;

use thiserror::Error;

use super::super::error::LoadError;
use super::super::programs::pins::{self, PinError};
use super::clsact;
use crate::host::Host;
use crate::net::netns::Namespace;
use crate::net::rtnetlink::own_netns_cookie;

/// Why filters stay.
#[derive(Debug, Error)]
pub(crate) enum FilterError {
    #[error("cannot list the network devices: {0}")]
    Devices(#[from] io::Error),
    #[error("cannot take the filters off {device}: {}", error.in_one_line())]
    Device { device: String, error: Box<LoadError> },
    #[error("cannot enter net:[{inode}] to take filters off: {error} (it needs CAP_SYS_ADMIN)")]
    Namespace { inode: u64, error: io::Error },
    #[error(transparent)]
    Pins(#[from] PinError),
}

/// In the other network namespaces that are meant; those with pins that somebody holds are left alone. One that may not be
/// entered is an error where something is asked of them: else no daemon with these rights has been there.
pub(crate) fn remove_filters_elsewhere(
    host: &Host,
    pin_dir: &Path,
    is_asked: bool,
    is_meant: impl Fn(u64) -> bool + Sync,
) -> Result<Vec<String>, FilterError> {
    let held = pins::namespaces(pin_dir)?;
    let mut removed = Vec::new();
    for namespace in Namespace::others(host) {
        let clear = || {
            let id = own_netns_cookie().unwrap_or(namespace.inode());
            if is_meant(id) && !held.contains(&id) { remove_filters(host) } else { Ok(Vec::new()) }
        };
        let inode = namespace.inode();
        let there = match namespace.within(clear) {
            Ok(there) => there?,
            Err(error) if is_asked => return Err(FilterError::Namespace { inode, error }),
            Err(_) => Vec::new(),
        };
        removed.extend(there.iter().map(|line| format!("{line} in net:[{inode}]")));
    }
    Ok(removed)
}

/// In the network namespace of this thread.
pub(crate) fn remove_filters(host: &Host) -> Result<Vec<String>, FilterError> {
    let mut removed = Vec::new();
    for device in host.net_device_names()? {
        match clsact::remove_filters(&device) {
            Ok(true) => removed.push(format!("removed the filters on {device}")),
            Ok(false) => {}
            Err(error) => return Err(FilterError::Device { device, error: Box::new(error) }),
        }
    }
    Ok(removed)
}
