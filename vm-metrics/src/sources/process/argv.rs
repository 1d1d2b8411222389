//! Splits the command line of a process into its arguments. Pure.

/// Managers write some hundreds of words in some tens of KiB. A longer command line is not parsed.
pub const MAX_WORDS: usize = 4096;
pub const MAX_BYTES: usize = 256 << 10;

/// Whether it is longer than one that is parsed.
pub fn is_too_long(argv: &[String]) -> bool {
    argv.len() > MAX_WORDS || argv.iter().map(|word| word.len() + 1).sum::<usize>() > MAX_BYTES
}

/// The arguments in `/proc/<pid>/cmdline`, where a NUL ends each. Of too many, the first and one more.
pub fn split(content: &[u8]) -> Vec<String> {
    let content = content.strip_suffix(b"\0").unwrap_or(content);
    if content.is_empty() {
        return Vec::new();
    }
    let words = content.split(|byte| *byte == 0).take(MAX_WORDS + 1);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_end_with_a_nul() {
        assert_eq!(split(b""), [""; 0]);
        assert_eq!(split(b"kvm\0-m\0\x002\0"), ["kvm", "-m", "", "2"]);
        assert_eq!(split(b"cut"), ["cut"]);
        assert_eq!(split(b"kvm\0-name\0a\xffb\0"), ["kvm", "-name", "a\u{fffd}b"]);
    }
}
