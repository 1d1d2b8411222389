//! The files that have one `name: value` per line: `status` and `io`.

use super::{ParseError, number};
use crate::model::{DiskBytes, MemorySplit};

/// Reads `status`; `None` for a process that has no memory any more: one that has ended and is not reaped.
pub fn parse_status(content: &[u8]) -> Result<Option<MemorySplit>, ParseError> {
    let mut split = MemorySplit::default();
    let (mut has_memory, mut is_whole) = (false, false);
    for (name, value) in pairs(content) {
        match name {
            b"VmSize" => has_memory = true,
            b"RssAnon" => split.anon_bytes = Some(kibibytes("RssAnon", value)?),
            b"RssFile" => split.file_bytes = Some(kibibytes("RssFile", value)?),
            b"RssShmem" => split.shmem_bytes = Some(kibibytes("RssShmem", value)?),
            b"HugetlbPages" => split.hugetlb_bytes = Some(kibibytes("HugetlbPages", value)?),
            b"VmSwap" => split.swap_bytes = Some(kibibytes("VmSwap", value)?),
            // The first line after those of the memory.
            b"Threads" => is_whole = true,
            _ => {}
        }
    }
    // The list of groups comes before the memory and may be longer than what a reader reads.
    if is_whole { Ok(has_memory.then_some(split)) } else { Err(ParseError::Missing("Threads")) }
}

/// Whether the pids of a procfs are those that the process itself would use, by its own `status` in that procfs:
/// `NSpid` has its pid in every namespace from the procfs's down to its own.
pub fn is_of_own_pid_namespace(status: &[u8]) -> bool {
    let pids = pairs(status).find(|(name, _)| *name == b"NSpid").map(|(_, pids)| pids);
    pids.is_some_and(|pids| number::<u32>("NSpid", pids).is_ok())
}

/// Reads `io`.
pub fn parse_io(content: &[u8]) -> Result<DiskBytes, ParseError> {
    let field = |wanted: &'static str| {
        let found = pairs(content).find(|(name, _)| *name == wanted.as_bytes());
        found.ok_or(ParseError::Missing(wanted)).and_then(|(_, value)| number(wanted, value))
    };
    Ok(DiskBytes {
        read_bytes: field("read_bytes")?,
        write_bytes: field("write_bytes")?,
        cancelled_write_bytes: field("cancelled_write_bytes")?,
    })
}

/// Names and values of the lines that are whole.
fn pairs(content: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = content.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The kernel's `kB` are 1024 bytes.
fn kibibytes(field: &'static str, value: &[u8]) -> Result<u64, ParseError> {
    let not_a_number = || ParseError::NotANumber { field, text: super::excerpt(value) };
    let digits = value.strip_suffix(b" kB").ok_or_else(not_a_number)?;
    number::<u64>(field, digits)?.checked_mul(1024).ok_or_else(not_a_number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS: &str = "Name:\tqemu: RssAnon:\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t42\nGroups:\t0 36 \n\
        VmPeak:\t  812340 kB\nVmSize:\t  800000 kB\nVmHWM:\t  120000 kB\nVmRSS:\t  110003 kB\nRssAnon:\t   90000 kB\n\
        RssFile:\t   20000 kB\nRssShmem:\t       3 kB\nVmData:\t  1 kB\nVmSwap:\t      16 kB\n\
        HugetlbPages:\t    2048 kB\nCoreDumping:\t0\nThreads:\t3\nSigQ:\t0/1\n";

    const IO: &str = "rchar: 4292\nwchar: 0\nsyscr: 13\nsyscw: 0\nread_bytes: 8192\nwrite_bytes: 4096\n\
        cancelled_write_bytes: 12\n";

    #[test]
    fn a_real_status() {
        let split = MemorySplit {
            anon_bytes: Some(90_000 << 10),
            file_bytes: Some(20_000 << 10),
            shmem_bytes: Some(3 << 10),
            hugetlb_bytes: Some(2 << 20),
            swap_bytes: Some(16 << 10),
        };
        assert_eq!(parse_status(STATUS.as_bytes()), Ok(Some(split)));
    }

    #[test]
    fn what_a_kernel_does_not_say_is_not_known() {
        let without: String =
            STATUS.lines().filter(|line| !line.starts_with("Huge")).map(|line| format!("{line}\n")).collect();
        let split = parse_status(without.as_bytes()).unwrap().unwrap();
        assert_eq!((split.hugetlb_bytes, split.swap_bytes), (None, Some(16 << 10)));
    }

    #[test]
    fn a_process_that_has_ended_has_no_memory() {
        assert_eq!(parse_status(b"Name:\tqemu\nState:\tZ (zombie)\nThreads:\t1\n"), Ok(None));
    }

    #[test]
    fn one_pid_is_that_of_the_own_namespace() {
        assert!(is_of_own_pid_namespace(b"Pid:\t9\nNSpid:\t9\n"));
        assert!(
            !is_of_own_pid_namespace(b"Pid:\t9\nNSpid:\t9\t1\n"),
            "a container's process in the host's procfs"
        );
        assert!(!is_of_own_pid_namespace(b"Pid:\t9\n"));
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(parse_status(b""), Err(ParseError::Missing("Threads")));
        let mut many_groups = STATUS.replace("Groups:\t0 36", &format!("Groups:\t{}", "7 ".repeat(3000)));
        many_groups.truncate(4096);
        assert_eq!(parse_status(many_groups.as_bytes()), Err(ParseError::Missing("Threads")));
        for (from, to) in
            [("   16 kB", "  -16 kB"), ("   16 kB", "   16"), ("   16 kB", "18446744073709551615 kB")]
        {
            let error = parse_status(STATUS.replace(from, to).as_bytes()).unwrap_err();
            assert!(matches!(error, ParseError::NotANumber { field: "VmSwap", .. }), "{to:?}: {error}");
        }
        assert_eq!(parse_io(b"read_bytes: 1\nwrite_bytes: 2"), Err(ParseError::Missing("write_bytes")));
        let error = parse_io(IO.replace("4096", "lots").as_bytes()).unwrap_err();
        assert!(matches!(error, ParseError::NotANumber { field: "write_bytes", .. }), "{error}");
    }

    #[test]
    fn a_real_io() {
        let bytes = DiskBytes { read_bytes: 8192, write_bytes: 4096, cancelled_write_bytes: 12 };
        assert_eq!(parse_io(IO.as_bytes()), Ok(bytes));
    }

    proptest! {
        #[test]
        fn a_cut_file_is_an_error_or_the_same_numbers(cut in 0..STATUS.len()) {
            if let Ok(split) = parse_status(&STATUS.as_bytes()[..cut]) {
                prop_assert_eq!(split, parse_status(STATUS.as_bytes()).unwrap());
            }
            if let Ok(bytes) = parse_io(&IO.as_bytes()[..cut.min(IO.len())]) {
                prop_assert_eq!(bytes, parse_io(IO.as_bytes()).unwrap());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = (parse_status(&bytes), parse_io(&bytes));
        }
    }
}
