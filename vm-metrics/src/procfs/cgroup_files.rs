//! The files in the directory of a control group (v2): `cpu.stat`, `memory.events`, `cpu.pressure` and others. Pure.

use super::{ParseError, number};
use crate::model::PressureStats;

/// Reads the number of a line `key number`; `None` without such a line that is whole.
pub fn parse_flat_key(content: &[u8], key: &'static str) -> Result<Option<u64>, ParseError> {
    let value = lines(content).find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b" "));
    value.map(|value| number(key, value)).transpose()
}

/// Reads a file that holds one number; `None` for `max`, which is no limit.
pub fn parse_limit(content: &[u8]) -> Result<Option<u64>, ParseError> {
    match lines(content).next() {
        Some(b"max") => Ok(None),
        Some(value) => number("the only one", value).map(Some),
        None => Err(ParseError::Missing("the only one")),
    }
}

/// Reads the `total` of the lines `some` and `full`, in microseconds.
pub fn parse_pressure(content: &[u8]) -> Result<PressureStats, ParseError> {
    let total = |kind: &str| {
        let line = lines(content).find_map(|line| line.strip_prefix(kind.as_bytes())?.strip_prefix(b" "));
        let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
        words.find_map(|word| word.strip_prefix(b"total=")).map(|total| number("total", total)).transpose()
    };
    Ok(PressureStats { some_usec: total("some")?, full_usec: total("full")? })
}

/// Lines that are whole.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CPU_STAT: &[u8] = b"usage_usec 4523161\nuser_usec 4520000\nsystem_usec 3161\nnice_usec 0\n\
        core_sched.force_idle_usec 0\nnr_periods 51\nnr_throttled 50\nthrottled_usec 4521098\nnr_bursts 0\nburst_usec 0\n";
    const PRESSURE: &[u8] = b"some avg10=79.21 avg60=31.96 avg300=8.46 total=28105911\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=77\n";

    #[test]
    fn real_files() {
        let key = |key| parse_flat_key(CPU_STAT, key).unwrap();
        assert_eq!(
            ["nr_periods", "nr_throttled", "throttled_usec"].map(key),
            [Some(51), Some(50), Some(4_521_098)]
        );
        assert_eq!(parse_flat_key(CPU_STAT, "nr"), Ok(None), "the beginning of a key is none");
        let expected = PressureStats { some_usec: Some(28_105_911), full_usec: Some(77) };
        assert_eq!(parse_pressure(PRESSURE), Ok(expected));
        assert_eq!(parse_limit(b"max\n"), Ok(None));
        assert_eq!(parse_limit(b"268435456\n"), Ok(Some(268_435_456)));
    }

    #[test]
    fn bad_numbers_are_errors_that_name_the_field() {
        let error = parse_flat_key(b"oom_kill many\n", "oom_kill").unwrap_err().to_string();
        assert!(error.contains("oom_kill") && error.contains("many"), "{error}");
        assert!(parse_pressure(b"some avg10=1.00 total=-1\n").is_err());
        assert!(parse_limit(b"\n").is_err());
        assert!(parse_limit(b"12").is_err(), "it may have been cut");
    }

    proptest! {
        #[test]
        fn a_cut_file_never_changes_the_numbers(cut in 0..CPU_STAT.len()) {
            for key in ["nr_periods", "throttled_usec"] {
                let whole = parse_flat_key(CPU_STAT, key).unwrap();
                prop_assert!([None, whole].contains(&parse_flat_key(&CPU_STAT[..cut], key).unwrap()));
            }
            let cut = parse_pressure(&PRESSURE[..cut.min(PRESSURE.len())]).unwrap();
            prop_assert!([None, Some(28_105_911)].contains(&cut.some_usec));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = (parse_flat_key(&bytes, "oom_kill"), parse_limit(&bytes), parse_pressure(&bytes));
        }
    }
}
