//! The file name of a hypervisor that has no support of its own here.

use std::fmt;

/// Bytes that are kept of a name. Each VM has it as a label.
const LENGTH: usize = 32;

/// A short text that is copied like a number. The rest of a longer name is cut.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ProgramName {
    bytes: [u8; LENGTH],
    length: u8,
}

impl ProgramName {
    /// Keeps the first 32 bytes, or fewer where a character would be cut.
    pub fn new(name: &str) -> Self {
        let kept = &name[..name.floor_char_boundary(LENGTH)];
        let mut bytes = [0; LENGTH];
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        Self { bytes, length: u8::try_from(kept.len()).unwrap_or_default() }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        for name in ["", "crosvm", "a name of exactly thirty-two byt"] {
            assert_eq!(ProgramName::new(name).as_str(), name);
        }
        assert_eq!(ProgramName::new(&"é".repeat(40)).as_str(), "é".repeat(16));
        assert_eq!(
            ProgramName::new(&format!("x{}", "é".repeat(40))).as_str(),
            format!("x{}", "é".repeat(15))
        );
    }
}
