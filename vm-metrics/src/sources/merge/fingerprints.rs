//! Hashes that tell VMs of one id apart, stable over restarts.

/// How many there are.
pub const LEVELS: usize = 3;

/// Hashes of facts, the strongest first; each includes the facts of all former ones.
///
/// The first distinguishes VMs at any time. The second adds facts that count beside another VM of the id, the third facts
/// that a restart of the VM may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints([u64; LEVELS]);

impl Fingerprints {
    /// Of three groups of facts. Unknown facts are empty.
    pub(crate) fn new(groups: [&[&str]; LEVELS]) -> Self {
        let mut hash = Hash::default();
        Self(groups.map(|group| {
            group.iter().for_each(|fact| hash.add(fact.as_bytes()));
            hash.end_group();
            hash.0
        }))
    }

    pub(crate) fn numbers(self) -> [u64; LEVELS] {
        self.0
    }

    /// Of a VM that the operator names: nothing but another VM beside it makes it another.
    pub(crate) fn of_operators(self) -> Self {
        let Self([_, rest @ ..]) = self;
        Self([0, rest[0], rest[1]])
    }
}

/// Six digits of a text that are the same everywhere.
pub(crate) fn short_hash(text: &str) -> String {
    let mut hash = Hash::default();
    hash.add(text.as_bytes());
    let Hash(hash) = hash;
    format!("{:06x}", (hash ^ hash >> 24 ^ hash >> 48) & 0xff_ffff)
}

/// FNV-1a, which no library update changes. A tenant can only make two of its own VMs equal.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// With its length, so that two facts are never one longer.
    fn add(&mut self, fact: &[u8]) {
        let length = (fact.len() as u64).to_le_bytes();
        length.iter().chain(fact).for_each(|byte| self.byte(*byte));
    }

    fn end_group(&mut self) {
        self.byte(0xff);
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_stay_the_same_in_every_version() {
        let numbers = Fingerprints::new([&["121"], &["web", "/run/web.sock"], &[]]).numbers();
        assert_eq!(
            numbers.map(|number| format!("{number:x}")),
            ["8685c6fdc390a5f9", "c9bb86d817bac0e9", "8466373052546562"]
        );
        assert_eq!(short_hash("web"), "c8a9cf");
    }

    #[test]
    fn later_groups_have_the_earlier_ones_in_them() {
        let [a, b, c] = Fingerprints::new([&["x"], &["y"], &["z"]]).numbers();
        let [d, e, f] = Fingerprints::new([&["x"], &["w"], &["z"]]).numbers();
        assert!(a == d && b != e && c != f);
        let [g, ..] = Fingerprints::new([&["x", "y"], &[], &[]]).numbers();
        let [h, ..] = Fingerprints::new([&["xy"], &[], &[]]).numbers();
        assert_ne!(g, h);
    }
}
