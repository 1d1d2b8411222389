//! Created timestamps of counters, which only the protobuf format carries.
//!
//! A created timestamp is the moment when a counter was 0. The messages of the crate are older than this field, so they get
//! it as an unknown one.

use prometheus::proto::{Counter, MetricFamily, MetricType};

use super::wire;

/// `created_timestamp` of `io.prometheus.client.Counter`, a `google.protobuf.Timestamp`.
const CREATED: u8 = 3;

/// Its fields.
const SECONDS: u8 = 1;
const NANOS: u8 = 2;

/// Writes the timestamp of a counter, in seconds of Unix time.
pub(super) fn write(counter: &mut Vec<u8>, since: f64) {
    wire::begin(counter, CREATED, 0);
    let begin = counter.len();
    timestamp(counter, since);
    // The length is one byte, as it is below 128.
    counter[begin - 1] = (counter.len() - begin) as u8;
}

/// Sets it on all counters of these families.
pub(super) fn set_all(families: &mut [MetricFamily], since: f64) {
    let counters = families.iter_mut().filter(|family| family.get_field_type() == MetricType::COUNTER);
    for metric in counters.flat_map(MetricFamily::mut_metric) {
        let mut counter = Counter::default();
        counter.set_value(metric.get_counter().value());
        set(&mut counter, since);
        metric.set_counter(counter);
    }
}

pub(super) fn set(counter: &mut Counter, since: f64) {
    let mut message = Vec::new();
    timestamp(&mut message, since);
    counter.special_fields.mut_unknown_fields().add_length_delimited(CREATED.into(), message);
}

/// A message in whole milliseconds, as Prometheus stores them. Times before 1970 become 1970.
fn timestamp(out: &mut Vec<u8>, since: f64) {
    let millis = (since.max(0.0) * 1000.0).floor() as u64;
    for (field, value) in [(SECONDS, millis / 1000), (NANOS, millis % 1000 * 1_000_000)] {
        if value > 0 {
            wire::number(out, field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_the_bytes_of_protobuf() {
        let message = |since| {
            let mut counter = Vec::new();
            write(&mut counter, since);
            assert_eq!((counter[0], counter.len()), (CREATED << 3 | 2, usize::from(counter[1]) + 2));
            counter.split_off(2)
        };
        assert!(message(0.0).is_empty());
        assert!(message(-5.0).is_empty());
        let mut counter = Vec::new();
        write(&mut counter, 0.0);
        assert_eq!(counter, [0x1a, 0], "field 3 of the counter, with a length");
        assert_eq!(message(0.0014), [NANOS << 3, 0xc0, 0x84, 0x3d]);
        assert_eq!(message(300.0), [SECONDS << 3, 0xac, 0x02]);
        let now = [SECONDS << 3, 0x80, 0xdc, 0x9e, 0xcb, 0x06, NANOS << 3, 0x80, 0xca, 0xb5, 0xee, 0x01];
        assert_eq!(message(1_768_402_432.5), now);
    }
}
