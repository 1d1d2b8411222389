//! Fields of protobuf messages, byte by byte.

/// Wire types: how the length of a field is known.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] writes.
pub(super) fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3 | VARINT);
    varint(out, value);
}

pub(super) fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | FIXED64);
    out.extend(value.to_le_bytes());
}

/// A field of so many bytes, which follow.
pub(super) fn begin(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | DELIMITED);
    varint(out, length as u64);
}

pub(super) fn bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    begin(out, field, bytes.len());
    out.extend_from_slice(bytes);
}
