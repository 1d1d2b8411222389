//! UUIDs, which everybody spells in lower case here, so that two spellings are one VM.

/// In lower case where it is a UUID; anything else as it is.
pub fn canonical(id: &str) -> String {
    if is_uuid(id) { id.to_ascii_lowercase() } else { id.to_owned() }
}

/// The value of an option that takes a UUID. Many VMs have a UUID of zeros.
pub fn given(text: &str) -> Option<String> {
    let is_zero = is_uuid(text) && text.bytes().all(|byte| matches!(byte, b'0' | b'-'));
    (!text.is_empty() && !is_zero).then(|| text.to_ascii_lowercase())
}

/// Five groups of hexadecimal digits.
pub fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uuids_change_their_case() {
        assert_eq!(canonical("6F9C7D5E-3F7D-4D0A-9D39-0F0D3A6B1C55"), "6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55");
        for other in ["Web", "6F9C7D5E3F7D4D0A9D390F0D3A6B1C55", "6F9C7D5E-3F7D-4D0A-9D39-0F0D3A6B1C5X", ""] {
            assert_eq!(canonical(other), other);
        }
        assert_eq!(given("00000000-0000-0000-0000-000000000000"), None);
        assert_eq!(given("ABC"), Some("abc".to_owned()));
    }
}
