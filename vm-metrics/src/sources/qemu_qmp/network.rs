//! Parses the network backends of QEMU, from its human monitor. Pure.
//!
//! QMP has no command for them.

use crate::model::UnmonitoredNic;
use crate::sources::proc_scan::netdev_kind;
use crate::sources::shortened;
use crate::sources::values::bounded::MAX_NICS;

/// The arguments of `human-monitor-command`.
pub const INFO_NETWORK: &str = "{\"command-line\":\"info network\"}";

/// The backends of `info network` that are no TAP: lines like ` \ n0: index=0,type=user,…`.
pub fn unmonitored(network: &str) -> (Vec<UnmonitoredNic>, bool) {
    let backend = |line: &str| {
        let (name, vmm) = line.trim().trim_start_matches("\\ ").split_once(": ")?;
        let backend = vmm.split(',').find_map(|fact| fact.strip_prefix("type="))?;
        let kind = netdev_kind(backend)?;
        Some(UnmonitoredNic { kind, name: shortened(name) })
    };
    let mut nics: Vec<_> = network.lines().filter_map(backend).take(MAX_NICS + 1).collect();
    let has_more = nics.len() > MAX_NICS;
    nics.truncate(MAX_NICS);
    (nics, has_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 7.2 says it.
    const REAL: &str = "hub 0\r\n \\ h0\r\ns0: index=0,type=stream,\r\n\
        e1000e.0: index=0,type=nic,model=e1000e,macaddr=52:54:00:12:34:56\r\n \
        \\ #net061: index=0,type=user,net=10.0.2.0,restrict=off\r\nt0: index=0,type=tap,ifname=tap0\r\n";

    #[test]
    fn backends_without_a_device_are_unmonitored() {
        let (nics, has_more) = unmonitored(REAL);
        let nics: Vec<_> = nics.iter().map(|nic| format!("{} {}", nic.kind.as_str(), nic.name)).collect();
        assert_eq!((nics, has_more), (vec!["socket s0".to_owned(), "user #net061".to_owned()], false));
    }

    #[test]
    fn a_flood_of_backends_is_cut() {
        let (nics, has_more) = unmonitored(&"n: index=0,type=user\r\n".repeat(1000));
        assert_eq!((nics.len(), has_more), (MAX_NICS, true));
    }
}
