//! The number of entries of an array by CPU.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::OnceLock;

use super::error::LoadError;
use crate::host::Host;

/// The highest id of a possible CPU, plus one: more than the number of CPUs where ids have gaps. By reference, as the loader
/// keeps globals.
pub(crate) fn cpu_ids() -> Result<&'static u32, LoadError> {
    static IDS: OnceLock<u32> = OnceLock::new();
    if let Some(ids) = IDS.get() {
        return Ok(ids);
    }
    let path = Host::default().possible_cpus();
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    let ids = fs::read_to_string(&path).and_then(|ranges| ids(&ranges).ok_or_else(invalid));
    let ids = ids.map_err(|source| LoadError::Cpus { path, source })?;
    Ok(IDS.get_or_init(|| ids))
}

/// Ranges in ascending order, such as `0-3,8`.
fn ids(ranges: &str) -> Option<u32> {
    let highest = ranges.trim().rsplit([',', '-']).next()?;
    highest.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_ids_have_entries() {
        assert_eq!(
            ["0\n", "0-3\n", "0-3,8\n", "0,4-7\n", "\n"].map(ids),
            [Some(1), Some(4), Some(9), Some(8), None]
        );
    }

    #[test]
    fn this_host_has_an_id_for_each_cpu() {
        assert!(*cpu_ids().unwrap() as usize >= aya::util::nr_cpus().unwrap());
    }
}
