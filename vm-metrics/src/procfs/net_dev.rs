//! `/proc/<pid>/net/dev`: the counters of the devices in a process's network namespace.

use std::collections::HashMap;

use super::{Fields, ParseError};
use crate::model::TapStats;

/// Lines of headings.
const HEADINGS: usize = 2;

/// Counters by name, **host** perspective. Names that are not UTF-8 are omitted.
pub fn parse_net_dev(content: &[u8]) -> Result<HashMap<String, TapStats>, ParseError> {
    let lines = content.split_inclusive(|byte| *byte == b'\n').skip(HEADINGS);
    let mut devices = HashMap::new();
    for line in lines {
        // A name may hold a colon, the numbers do not.
        let colon = line.iter().rposition(|byte| *byte == b':').ok_or(ParseError::Missing("name"))?;
        let Ok(name) = str::from_utf8(line[..colon].trim_ascii_start()) else { continue };
        devices.insert(name.to_owned(), counters(&line[colon + 1..])?);
    }
    Ok(devices)
}

fn counters(line: &[u8]) -> Result<TapStats, ParseError> {
    let mut fields = Fields { rest: line };
    let (rx_bytes, rx_packets) = (fields.number("rx bytes")?, fields.number("rx packets")?);
    let (rx_errors, rx_dropped) = (fields.number("rx errs")?, fields.number("rx drop")?);
    fields.skip(4)?;
    let (tx_bytes, tx_packets) = (fields.number("tx bytes")?, fields.number("tx packets")?);
    let (tx_errors, tx_dropped) = (fields.number("tx errs")?, fields.number("tx drop")?);
    Ok(TapStats { rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REAL: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   84210     512    0    0    0     0          0         0    84210     512    0    0    0     0       0          0
  tap0: 1234567     890    1    2    0     0          0         0  7654321     987    3    4    0     0       0          0
a:b:  1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0
";

    #[test]
    fn a_real_file() {
        let devices = parse_net_dev(REAL.as_bytes()).unwrap();
        let expected = TapStats {
            rx_bytes: 1_234_567,
            tx_bytes: 7_654_321,
            rx_packets: 890,
            tx_packets: 987,
            rx_errors: 1,
            tx_errors: 3,
            rx_dropped: 2,
            tx_dropped: 4,
        };
        assert_eq!(devices["tap0"], expected);
        assert_eq!(devices["a:b"].tx_bytes, 3);
        assert_eq!(devices.len(), 3);
        assert_eq!(parse_net_dev(b"").unwrap(), HashMap::new());
    }

    proptest! {
        #[test]
        fn a_cut_file_never_changes_the_numbers(cut in 0..REAL.len()) {
            if let Ok(devices) = parse_net_dev(&REAL.as_bytes()[..cut]) {
                let whole = parse_net_dev(REAL.as_bytes()).unwrap();
                for (name, stats) in devices {
                    prop_assert_eq!(stats, whole[&name]);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_net_dev(&bytes);
        }
    }
}
