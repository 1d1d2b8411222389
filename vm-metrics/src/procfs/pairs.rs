//! The files that have one `name: value` per line: `status`, `io` and `smaps_rollup`.

use super::{ParseError, number};
use crate::model::ProcessStats;

/// The user and groups that a process acts as, in the user namespace of the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub real_uid: u32,
    pub effective_uid: u32,
    /// With which the kernel checks access to files.
    pub fs_uid: u32,
    pub fs_gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl Credentials {
    /// The user who runs the process. A program that has taken on root's rights is still its user's.
    pub fn user(&self) -> u32 {
        if self.real_uid == 0 { self.effective_uid } else { self.real_uid }
    }
}

/// Reads the credentials in `status`. A list of groups that was cut has only the groups that are whole.
pub fn parse_credentials(content: &[u8]) -> Result<Credentials, ParseError> {
    let [real_uid, effective_uid, _, fs_uid] = ids("Uid", value(content, "Uid")?)?;
    let [_, _, _, fs_gid] = ids("Gid", value(content, "Gid")?)?;
    let groups =
        content.split_inclusive(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Groups:"));
    let mut groups = super::Fields { rest: groups.unwrap_or_default() };
    let groups = std::iter::from_fn(|| groups.number("Groups").ok()).collect();
    Ok(Credentials { real_uid, effective_uid, fs_uid, fs_gid, groups })
}

/// The real, effective, saved and file system id.
fn ids(field: &'static str, value: &[u8]) -> Result<[u32; 4], ParseError> {
    let mut ids = value.split(|byte| *byte == b'\t').map(|id| number(field, id));
    let mut next = || ids.next().unwrap_or(Err(ParseError::Missing(field)));
    Ok([next()?, next()?, next()?, next()?])
}

/// Reads `status`; `None` for a process that has no memory any more: one that has ended and is not reaped.
pub fn parse_status(content: &[u8]) -> Result<Option<ProcessStats>, ParseError> {
    let mut stats = ProcessStats::default();
    let (mut has_memory, mut is_whole) = (false, false);
    for (name, value) in pairs(content) {
        match name {
            b"VmSize" => has_memory = true,
            b"RssAnon" => stats.memory_anon_bytes = Some(kibibytes("RssAnon", value)?),
            b"RssFile" => stats.memory_file_bytes = Some(kibibytes("RssFile", value)?),
            b"RssShmem" => stats.memory_shmem_bytes = Some(kibibytes("RssShmem", value)?),
            b"HugetlbPages" => stats.memory_hugetlb_bytes = Some(kibibytes("HugetlbPages", value)?),
            b"VmSwap" => stats.memory_swap_bytes = Some(kibibytes("VmSwap", value)?),
            // The first line after those of the memory.
            b"Threads" => is_whole = true,
            _ => {}
        }
    }
    // The list of groups comes before the memory and may exceed a reader's buffer.
    if is_whole { Ok(has_memory.then_some(stats)) } else { Err(ParseError::Missing("Threads")) }
}

/// Whether a procfs has the pids of the process's own pid namespace, by the process's `status` in that procfs. `NSpid`
/// lists its pid in each namespace, from that of the procfs down to its own.
pub fn is_of_own_pid_namespace(status: &[u8]) -> bool {
    let pids = pairs(status).find(|(name, _)| *name == b"NSpid").map(|(_, pids)| pids);
    pids.is_some_and(|pids| number::<u32>("NSpid", pids).is_ok())
}

/// Reads `smaps_rollup`.
pub fn parse_smaps_rollup(content: &[u8]) -> Result<ProcessStats, ParseError> {
    let field = |wanted| kibibytes(wanted, value(content, wanted)?);
    let (clean, dirty) = (field("Private_Clean")?, field("Private_Dirty")?);
    let (pss, private) = (field("Pss")?, clean.saturating_add(dirty));
    Ok(ProcessStats {
        memory_pss_bytes: Some(pss),
        memory_private_bytes: Some(private),
        ..ProcessStats::default()
    })
}

/// Reads `io`.
pub fn parse_io(content: &[u8]) -> Result<ProcessStats, ParseError> {
    let field = |wanted| number(wanted, value(content, wanted)?).map(Some);
    Ok(ProcessStats {
        disk_read_bytes: field("read_bytes")?,
        disk_write_bytes: field("write_bytes")?,
        disk_cancelled_write_bytes: field("cancelled_write_bytes")?,
        ..ProcessStats::default()
    })
}

fn value<'a>(content: &'a [u8], wanted: &'static str) -> Result<&'a [u8], ParseError> {
    let found = pairs(content).find(|(name, _)| *name == wanted.as_bytes());
    found.map(|(_, value)| value).ok_or(ParseError::Missing(wanted))
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

    const ROLLUP: &str = "55d6a3a4c000-7ffd0d3c5000 ---p 00000000 00:00 0                          [rollup]\n\
        Rss:              131072 kB\nPss:               98304 kB\nPss_Dirty:         65536 kB\n\
        Pss_Anon:          65536 kB\nShared_Clean:      32768 kB\nShared_Dirty:      32768 kB\n\
        Private_Clean:        12 kB\nPrivate_Dirty:     65524 kB\nReferenced:       131072 kB\n";

    #[test]
    fn a_real_smaps_rollup_and_a_cut_one() {
        let memory = ProcessStats {
            memory_pss_bytes: Some(96 << 20),
            memory_private_bytes: Some(64 << 20),
            ..ProcessStats::default()
        };
        assert_eq!(parse_smaps_rollup(ROLLUP.as_bytes()), Ok(memory));
        assert_eq!(parse_smaps_rollup(b""), Err(ParseError::Missing("Private_Clean")));
        let whole = ROLLUP.find("Referenced").unwrap();
        for cut in 0..ROLLUP.len() {
            let parsed = parse_smaps_rollup(&ROLLUP.as_bytes()[..cut]);
            assert_eq!(parsed.ok(), (cut >= whole).then_some(memory), "{cut}");
        }
    }

    #[test]
    fn a_real_status() {
        let stats = ProcessStats {
            memory_anon_bytes: Some(90_000 << 10),
            memory_file_bytes: Some(20_000 << 10),
            memory_shmem_bytes: Some(3 << 10),
            memory_hugetlb_bytes: Some(2 << 20),
            memory_swap_bytes: Some(16 << 10),
            ..ProcessStats::default()
        };
        assert_eq!(parse_status(STATUS.as_bytes()), Ok(Some(stats)));
    }

    #[test]
    fn a_missing_line_is_unknown() {
        let without: String =
            STATUS.lines().filter(|line| !line.starts_with("Huge")).map(|line| format!("{line}\n")).collect();
        let stats = parse_status(without.as_bytes()).unwrap().unwrap();
        assert_eq!((stats.memory_hugetlb_bytes, stats.memory_swap_bytes), (None, Some(16 << 10)));
    }

    const OWNER: &str =
        "Name:\tUid: 5\nUid:\t1000\t0\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t8 27 1001 \n";

    #[test]
    fn credentials_have_the_ids_for_files() {
        let owner =
            Credentials { real_uid: 1000, effective_uid: 0, fs_uid: 4, fs_gid: 8, groups: vec![8, 27, 1001] };
        assert_eq!(parse_credentials(OWNER.as_bytes()), Ok(owner.clone()));
        assert_eq!(owner.user(), 1000);
        assert_eq!(Credentials { real_uid: 0, effective_uid: 7, ..owner.clone() }.user(), 7);
        let cut = &OWNER.as_bytes()[..OWNER.len() - 4];
        assert_eq!(parse_credentials(cut), Ok(Credentials { groups: vec![8, 27], ..owner }));
        assert_eq!(parse_credentials(b"Uid:\t1\t2\t3\n"), Err(ParseError::Missing("Uid")));
        assert!(parse_credentials(b"Uid:\t1\t2\t3\tx\nGid:\t1\t2\t3\t4\n").is_err());
    }

    #[test]
    fn a_zombie_has_no_memory() {
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
        let bytes = ProcessStats {
            disk_read_bytes: Some(8192),
            disk_write_bytes: Some(4096),
            disk_cancelled_write_bytes: Some(12),
            ..ProcessStats::default()
        };
        assert_eq!(parse_io(IO.as_bytes()), Ok(bytes));
    }

    proptest! {
        #[test]
        fn a_cut_file_never_changes_the_numbers(cut in 0..STATUS.len()) {
            if let Ok(stats) = parse_status(&STATUS.as_bytes()[..cut]) {
                prop_assert_eq!(stats, parse_status(STATUS.as_bytes()).unwrap());
            }
            if let Ok(bytes) = parse_io(&IO.as_bytes()[..cut.min(IO.len())]) {
                prop_assert_eq!(bytes, parse_io(IO.as_bytes()).unwrap());
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = (parse_status(&bytes), parse_io(&bytes), parse_smaps_rollup(&bytes), parse_credentials(&bytes));
        }
    }
}
