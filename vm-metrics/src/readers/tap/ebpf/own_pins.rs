//! The pins of the network namespace that this process is in.

use super::options::Options;
use super::programs::pins;
use crate::host::Host;
use crate::net::rtnetlink::own_netns_cookie;
use crate::readers::ReaderError;

/// `None` where nothing is to be pinned. That it cannot be done is no reason not to count; that another daemon has the pins
/// is one.
pub(crate) fn open_pins(
    options: &Options,
    host: &Host,
) -> Result<Option<Result<pins::Pins, ReaderError>>, pins::PinError> {
    if !options.pin {
        return Ok(None);
    }
    let pin_dir = options.pin_dir(host);
    match pins::Pins::open(&pin_dir, own_load(host), options.mount_bpffs) {
        Ok(pins) => {
            pins::report_other_versions(&pin_dir);
            Ok(Some(Ok(pins)))
        }
        Err(held @ pins::PinError::Held { .. }) => Err(held),
        Err(error) => Ok(Some(Err((&error).into()))),
    }
}

/// What a look says of the pins that a daemon would make.
pub(crate) fn check_pins(options: &Options, host: &Host) -> Result<(), pins::PinError> {
    if !options.pin {
        return Ok(());
    }
    pins::Pins::check(&options.pin_dir(host), own_load(host), options.mount_bpffs)
}

/// The programs of the namespace that this process is in.
pub(crate) fn own_load(host: &Host) -> pins::LoadId {
    pins::LoadId {
        netns: own_netns_cookie().or_else(|| host.own_netns()).unwrap_or_default(),
        of: None,
        index: 0,
    }
}
