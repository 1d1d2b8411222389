//! Created timestamps of counters, which only the protobuf format carries.
//!
//! A created timestamp is the moment when a counter was 0. The messages of the crate are older than this field, so it is
//! added as an unknown one.

use prometheus::proto::{Counter, MetricFamily, MetricType};

/// `created_timestamp` of `io.prometheus.client.Counter`, a `google.protobuf.Timestamp`.
const CREATED: u32 = 3;

/// Its fields.
const SECONDS: u8 = 1;
const NANOS: u8 = 2;

/// Sets the timestamp of a counter, in seconds of Unix time.
pub(super) fn set(counter: &mut Counter, since: f64) {
    counter.special_fields.mut_unknown_fields().add_length_delimited(CREATED, timestamp(since));
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

/// A message in whole milliseconds, as Prometheus stores them. Times before 1970 become 1970.
fn timestamp(since: f64) -> Vec<u8> {
    let millis = (since.max(0.0) * 1000.0).floor() as u64;
    let mut message = Vec::new();
    field(&mut message, SECONDS, millis / 1000);
    field(&mut message, NANOS, millis % 1000 * 1_000_000);
    message
}

/// Appends a field of wire type 0, unless it is 0.
fn field(message: &mut Vec<u8>, number: u8, value: u64) {
    if value == 0 {
        return;
    }
    message.push(number << 3);
    let mut rest = value;
    while rest >= 0x80 {
        message.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    message.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, ProtobufEncoder};

    use super::*;

    #[test]
    fn timestamps_have_the_bytes_of_protobuf() {
        assert!(timestamp(0.0).is_empty());
        assert!(timestamp(-5.0).is_empty());
        assert_eq!(timestamp(0.0014), [NANOS << 3, 0xc0, 0x84, 0x3d]);
        assert_eq!(timestamp(300.0), [SECONDS << 3, 0xac, 0x02]);
        let now = [SECONDS << 3, 0x80, 0xdc, 0x9e, 0xcb, 0x06, NANOS << 3, 0x80, 0xca, 0xb5, 0xee, 0x01];
        assert_eq!(timestamp(1_768_402_432.5), now);
    }

    #[test]
    fn a_counter_carries_its_created_timestamp() {
        let mut counter = Counter::default();
        counter.set_value(1.0);
        set(&mut counter, 300.0);
        let mut family = MetricFamily::default();
        family.set_name("x_total".to_owned());
        family.set_field_type(MetricType::COUNTER);
        let mut metric = prometheus::proto::Metric::default();
        metric.set_counter(counter);
        family.set_metric(vec![metric]);
        let mut message = Vec::new();
        ProtobufEncoder::new().encode(&[family], &mut message).unwrap();
        let value = [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let created = [0x1a, 3, SECONDS << 3, 0xac, 0x02];
        assert!(message.ends_with(&[&value[..], &created].concat()), "{message:02x?}");
    }
}
