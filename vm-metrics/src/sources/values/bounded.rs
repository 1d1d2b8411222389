//! Limits for numbers and lists that VMMs and their files give.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::pci::networks;
use crate::host::Host;
use crate::model::UnmonitoredNic;

/// More than a VM has, for each is dozens of series.
pub const MAX_NICS: usize = 256;

/// More than any hypervisor gives a VM.
pub const MAX_VCPUS: u32 = 4096;

/// 1 PiB: more than any host has.
const MAX_MEMORY_BYTES: u64 = 1 << 50;

/// The first elements of a list, one more than [`MAX_NICS`]. The others are read over.
pub fn first_nics<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(First(PhantomData))
}

/// The first `MAX_NICS` unmonitored NICs, and whether there are more. A PCI device counts if it is a network controller, or
/// if its class is unknown.
pub fn unmonitored(host: &Host, nics: Vec<UnmonitoredNic>) -> (Vec<UnmonitoredNic>, bool) {
    let mut nics = networks(host, nics);
    let has_more = nics.len() > MAX_NICS;
    nics.truncate(MAX_NICS);
    (nics, has_more)
}

/// A number of vCPUs that a VM can have.
pub fn vcpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let vcpus = u32::deserialize(deserializer)?;
    if vcpus <= MAX_VCPUS { Ok(vcpus) } else { Err(D::Error::custom("more vCPUs than a VM has")) }
}

/// An amount of memory that a VM can have, given in bytes.
pub fn memory_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    memory(deserializer, MAX_MEMORY_BYTES)
}

/// An amount of memory that a VM can have, given in MiB.
pub fn memory_mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    memory(deserializer, MAX_MEMORY_BYTES >> 20)
}

/// Whether a VM can have so many bytes of memory.
pub fn is_memory(bytes: u64) -> bool {
    bytes <= MAX_MEMORY_BYTES
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D, most: u64) -> Result<u64, D::Error> {
    let memory = u64::deserialize(deserializer)?;
    if memory <= most { Ok(memory) } else { Err(D::Error::custom("more memory than a VM has")) }
}

struct First<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for First<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut first = Vec::new();
        while first.len() <= MAX_NICS {
            match list.next_element()? {
                Some(element) => first.push(element),
                None => return Ok(first),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Vm {
        #[serde(default, deserialize_with = "vcpus")]
        vcpus: u32,
        #[serde(default, deserialize_with = "memory_mib")]
        mib: u64,
        #[serde(default, deserialize_with = "first_nics")]
        nics: Vec<u32>,
    }

    fn vm(json: &str) -> Option<Vm> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn long_lists_are_cut() {
        let list = |count: u32| (0..count).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        let nics = |count| vm(&format!("{{\"nics\":[{}]}}", list(count))).unwrap().nics;
        assert_eq!(nics(3), [0, 1, 2]);
        assert_eq!((nics(34_000).len(), nics(34_000).last()), (MAX_NICS + 1, Some(&256)));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        assert_eq!(vm("{\"vcpus\":4096}").unwrap().vcpus, 4096);
        assert!(vm("{\"vcpus\":4097}").is_none());
        assert_eq!(vm("{\"mib\":1073741824}").unwrap().mib, 1 << 30);
        assert!(vm("{\"mib\":1073741825}").is_none());
        assert!(memory_bytes(&mut serde_json::Deserializer::from_str("1125899906842625")).is_err());
    }
}
