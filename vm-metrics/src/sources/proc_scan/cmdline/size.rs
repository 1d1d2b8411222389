//! Numbers and sizes as hypervisors spell them.

/// A size in bytes: `512`, `1.5G`, `0x40`, with a suffix of `b k M G T P E` in any case.
pub fn size(text: &str) -> Option<u64> {
    let is_digit =
        if hexadecimal_digits(text).is_some() { char::is_ascii_hexdigit } else { char::is_ascii_digit };
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, suffix) if suffix.is_ascii_alphabetic() && !is_digit(&suffix) => {
            (&text[..at], multiplier(suffix)?)
        }
        _ => (text, 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    number(whole)?.checked_mul(unit)?.checked_add(part_of(fraction, unit)?)
}

/// A plain number, decimal or `0x…`.
pub fn number(text: &str) -> Option<u64> {
    match hexadecimal_digits(text) {
        Some(digits) => unsigned(digits, 16),
        None => unsigned(text, 10),
    }
}

fn hexadecimal_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// Unlike `from_str_radix` alone, no sign.
fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    let all_digits = digits.chars().all(|digit| digit.is_digit(radix));
    all_digits.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

fn multiplier(suffix: char) -> Option<u64> {
    let power = "bkmgtpe".find(suffix.to_ascii_lowercase())?;
    1_u64.checked_shl(10 * u32::try_from(power).ok()?)
}

/// `0.<fraction>` of a unit, rounded down. The digits after the ninth would not make a byte at any unit in
/// use.
fn part_of(fraction: &str, unit: u64) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let numerator = u128::from(unsigned(digits, 10)?);
    let denominator = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(numerator * u128::from(unit) / denominator).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512", Some(512)),
            ("64k", Some(64 << 10)),
            ("4G", Some(4 << 30)),
            ("4g", Some(4 << 30)),
            ("2T", Some(2 << 40)),
            ("1P", Some(1 << 50)),
            ("1E", Some(1 << 60)),
            ("1048576B", Some(MIB)),
            ("1048576k", Some(1 << 30)),
            ("1.5G", Some(3 << 29)),
            ("1.G", Some(1 << 30)),
            ("0x40", Some(64)),
            ("0x40M", Some(64 * MIB)),
            ("0x4b", Some(75)),
            ("0x4Z", None),
            ("0", Some(0)),
            ("", None),
            ("G", None),
            ("0x", None),
            (".5G", None),
            ("-1", None),
            ("+1", None),
            ("1GB", None),
            ("1Z", None),
            ("1.x5G", None),
            ("16E", None),
            ("99999999999999999999", None),
            ("１", None),
        ] {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number("12"), Some(12));
        assert_eq!(number("0x10"), Some(16));
        assert_eq!(number("1k"), None);
        assert_eq!(number(""), None);
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text: String) {
            let _ = (size(&text), number(&text));
        }

        #[test]
        fn a_suffix_is_a_power_of_1024(count in 0..16_u64, power in 0..6_usize) {
            let suffix = &"bkMGTP"[power..=power];
            prop_assert_eq!(size(&format!("{count}{suffix}")), Some(count << (10 * power)));
        }
    }
}
