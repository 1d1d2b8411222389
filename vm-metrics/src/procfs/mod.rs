//! Pure parsers of the files in `/proc/<pid>`; the callers read them.
//!
//! The kernel ends every field with a space or a newline. A number at the end of the text may be truncated, so it counts as
//! missing.

mod cgroup;
mod cgroup_files;
pub mod executable;
mod net_dev;
mod pairs;

use std::fmt::Write as _;
use std::str::FromStr;

use thiserror::Error;

use crate::model::SchedTimes;
pub use cgroup::{Cgroup, kubernetes_pod, lasting_path, parse_cgroup, unified_group};
pub use cgroup_files::{parse_flat_key, parse_limit, parse_pressure};
pub use net_dev::parse_net_dev;
pub use pairs::{
    Credentials, is_of_own_pid_namespace, parse_credentials, parse_io, parse_smaps_rollup, parse_status,
};

/// The fields of `/proc/<pid>/stat` that are of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `Z`, …
    pub state: u8,
    pub ppid: u32,
    /// The process that leads the session; 0 when it is out of sight in another pid namespace.
    pub session: u32,
    /// Page faults of all threads, terminated ones included.
    pub minor_faults: u64,
    pub major_faults: u64,
    pub utime_ticks: u64,
    pub stime_ticks: u64,
    pub threads: u64,
    /// Clock ticks since boot: identifies the process, with the pid.
    pub start_ticks: u64,
}

impl Stat {
    /// A process that has ended and only waits for its parent: its other files are empty or all zero.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// `/proc/<pid>/statm`, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statm {
    pub size_pages: u64,
    pub resident_pages: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    #[error("no ')' that ends the command name")]
    NoCommand,
    #[error("field {0} is missing or cut short")]
    Missing(&'static str),
    #[error("field {field} is not a number that fits: {text:?}")]
    NotANumber { field: &'static str, text: String },
}

/// Reads `pid (comm) state ppid …`.
///
/// The command name may hold anything, also spaces, newlines and parentheses; the last `)` ends it.
pub fn parse_stat(content: &[u8]) -> Result<Stat, ParseError> {
    let end_of_command = content.iter().rposition(|byte| *byte == b')').ok_or(ParseError::NoCommand)?;
    let mut fields = Fields { rest: &content[end_of_command + 1..] };
    let state = fields.next("state")?;
    let &[state] = state else {
        return Err(ParseError::Missing("state"));
    };
    let ppid = fields.number("ppid")?;
    fields.skip(1)?;
    let session = fields.number("session")?;
    fields.skip(3)?;
    let minor_faults = fields.number("minflt")?;
    fields.skip(1)?;
    let major_faults = fields.number("majflt")?;
    fields.skip(1)?;
    let utime_ticks = fields.number("utime")?;
    let stime_ticks = fields.number("stime")?;
    fields.skip(4)?;
    let threads = fields.number("num_threads")?;
    fields.skip(1)?;
    let start_ticks = fields.number("starttime")?;
    Ok(Stat {
        state,
        ppid,
        session,
        minor_faults,
        major_faults,
        utime_ticks,
        stime_ticks,
        threads,
        start_ticks,
    })
}

/// Reads the `guest_time` of `/proc/<pid>/stat`: ticks in which a vCPU ran. Some kernels leave it at 0.
pub fn parse_guest_ticks(content: &[u8]) -> Result<u64, ParseError> {
    let end_of_command = content.iter().rposition(|byte| *byte == b')').ok_or(ParseError::NoCommand)?;
    let mut fields = Fields { rest: &content[end_of_command + 1..] };
    fields.skip(40)?;
    fields.number("guest_time")
}

/// Reads `size resident …`.
pub fn parse_statm(content: &[u8]) -> Result<Statm, ParseError> {
    let mut fields = Fields { rest: content };
    Ok(Statm { size_pages: fields.number("size")?, resident_pages: fields.number("resident")? })
}

/// Reads the `sum_exec_runtime run_delay pcount` of a thread; `None` for one that has never run, and for a kernel without
/// these counters.
pub fn parse_schedstat(content: &[u8]) -> Result<Option<SchedTimes>, ParseError> {
    let mut fields = Fields { rest: content };
    let times = SchedTimes {
        run_nsec: fields.number("sum_exec_runtime")?,
        wait_nsec: fields.number("run_delay")?,
        switches: fields.number("pcount")?,
    };
    Ok((times.switches > 0).then_some(times))
}

/// The rest of a line of fields.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self, field: &'static str) -> Result<&'a [u8], ParseError> {
        let text = self.rest.trim_ascii_start();
        let end = text.iter().position(u8::is_ascii_whitespace).ok_or(ParseError::Missing(field))?;
        self.rest = &text[end..];
        Ok(&text[..end])
    }

    fn number<T: FromStr>(&mut self, field: &'static str) -> Result<T, ParseError> {
        number(field, self.next(field)?)
    }

    fn skip(&mut self, count: usize) -> Result<(), ParseError> {
        (0..count).try_for_each(|_| self.next("between two that are needed").map(drop))
    }
}

fn number<T: FromStr>(field: &'static str, text: &[u8]) -> Result<T, ParseError> {
    str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ParseError::NotANumber { field, text: excerpt(text) })
}

/// Enough of a text to recognise it in an error message.
fn excerpt(text: &[u8]) -> String {
    const ENOUGH: usize = 32;
    let mut excerpt = String::from_utf8_lossy(&text[..text.len().min(ENOUGH)]).into_owned();
    if text.len() > ENOUGH {
        let _ = write!(excerpt, "… ({} bytes)", text.len());
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REAL: &[u8] = b"2145 (CPU 0/KVM) S 1 2145 2144 0 -1 138412416 9114 0 12 0 1234 567 0 0 20 0 7 0 \
        8812345 1298432000 54321 18446744073709551615 1 1 0 0 0 0 268444224 4096 16963 0 0 0 17 1 0 0 0 0 0\n";

    #[test]
    fn a_real_line() {
        let stat = parse_stat(REAL).unwrap();
        let expected = Stat {
            state: b'S',
            ppid: 1,
            session: 2144,
            minor_faults: 9114,
            major_faults: 12,
            utime_ticks: 1234,
            stime_ticks: 567,
            threads: 7,
            start_ticks: 8_812_345,
        };
        assert_eq!(stat, expected);
        assert!(!stat.is_dead());
        assert_eq!(parse_guest_ticks(REAL), Ok(0));
        let ran = REAL.strip_suffix(b" 0 0\n").unwrap();
        assert_eq!(parse_guest_ticks(&[ran, b" 77 0\n"].concat()), Ok(77));
        assert_eq!(
            parse_statm(b"317000 54321 4012 1 0 80000 0\n"),
            Ok(Statm { size_pages: 317_000, resident_pages: 54_321 })
        );
    }

    #[test]
    fn errors_name_the_field_or_end() {
        assert_eq!(parse_stat(b""), Err(ParseError::NoCommand));
        assert_eq!(parse_stat(b"1 (x) "), Err(ParseError::Missing("state")));
        assert_eq!(parse_stat(b"1 (x) SS 1 "), Err(ParseError::Missing("state")));
        let text = parse_stat(b"1 (x) S one ").unwrap_err().to_string();
        assert_eq!(text, "field ppid is not a number that fits: \"one\"");
        assert_eq!(parse_statm(b""), Err(ParseError::Missing("size")));
        assert_eq!(parse_statm(b"12 3"), Err(ParseError::Missing("resident")));
        let huge = parse_statm(b"12 99999999999999999999999 1\n").unwrap_err();
        assert!(matches!(huge, ParseError::NotANumber { field: "resident", .. }), "{huge}");
    }

    #[test]
    fn schedstats_with_and_without_counters() {
        let times = SchedTimes { run_nsec: 5_000_000_123, wait_nsec: 87_179, switches: 42 };
        assert_eq!(parse_schedstat(b"5000000123 87179 42\n"), Ok(Some(times)));
        assert_eq!(parse_schedstat(b"0 0 0\n"), Ok(None));
        assert_eq!(parse_schedstat(b"1 2 3"), Err(ParseError::Missing("pcount")));
        assert!(matches!(
            parse_schedstat(b"1 -2 3\n"),
            Err(ParseError::NotANumber { field: "run_delay", .. })
        ));
    }

    #[test]
    fn huge_text_is_shortened_in_the_message() {
        let mut line = vec![b'9'; 1 << 20];
        line.push(b'\n');
        let message = parse_statm(&line).unwrap_err().to_string();
        assert!(message.len() < 120, "{message}");
    }

    proptest! {
        #[test]
        fn any_command_name(
            comm in prop::collection::vec(any::<u8>(), 0..64),
            utime: u64, stime: u64, start: u64, ppid: u32,
        ) {
            let mut line = b"7 (".to_vec();
            line.extend(comm);
            line.extend(
                format!(") R {ppid} 7 7 0 -1 4194560 1 2 3 4 {utime} {stime} 5 6 20 0 1 0 {start} 9 9\n").bytes(),
            );
            let stat = parse_stat(&line).unwrap();
            prop_assert_eq!((stat.ppid, stat.utime_ticks, stat.stime_ticks), (ppid, utime, stime));
            prop_assert_eq!(stat.start_ticks, start);
        }

        #[test]
        fn a_cut_line_never_changes_the_numbers(cut in 0..REAL.len()) {
            if let Ok(stat) = parse_stat(&REAL[..cut]) {
                prop_assert_eq!(stat, parse_stat(REAL).unwrap());
            }
        }

        #[test]
        fn statm_round_trip(size: u64, resident: u64) {
            let line = format!("{size} {resident} 1 2 0 3 0\n");
            prop_assert_eq!(parse_statm(line.as_bytes()), Ok(Statm { size_pages: size, resident_pages: resident }));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_stat(&bytes);
            let _ = parse_guest_ticks(&bytes);
            let _ = parse_statm(&bytes);
            let _ = parse_schedstat(&bytes);
        }
    }
}
