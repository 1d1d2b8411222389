//! PCI addresses as people write them.

/// `0000:3b:00.1`, of that, of `3b:00.1`, or of a path that ends with it.
pub fn pci_address(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').rsplit('/').next()?.to_ascii_lowercase();
    let full = if text.len() == "00:00.0".len() { format!("0000:{text}") } else { text };
    let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (domain, rest) = full.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    (is_hex(domain, 4) && is_hex(bus, 2) && is_hex(device, 2) && is_hex(function, 1)).then_some(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["0000:3b:00.1", "3b:00.1", "3B:00.1", "/sys/bus/pci/devices/0000:3b:00.1/"] {
            assert_eq!(pci_address(text).as_deref(), Some("0000:3b:00.1"), "{text}");
        }
        for text in ["", "/", "0000:3b:00", "3b:00.10", "../../x", "0000:3b:0é.1", "c0ffee00-0000-0000"] {
            assert_eq!(pci_address(text), None, "{text}");
        }
    }
}
