//! Compresses a document once, for many answers that each have an end of their own.
//!
//! The shared part ends at a byte, and its block is not the last one (a sync flush). An answer adds an uncompressed block
//! and the checksum of both. Together they are one gzip member (RFC 1952), without compression for each request.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// Level 4 takes five times as long for a tenth less: `cargo bench -p vm-metrics --bench render`.
const LEVEL: u32 = 1;

/// Deflate, no name, no time, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The longest uncompressed block.
const MAX_STORED: usize = 0xffff;

/// The beginning of a gzip member.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    pub(super) bytes: Bytes,
    /// Checksum of the compressed document.
    checksum: Arc<Crc>,
}

impl Beginning {
    pub(super) fn of(document: &[u8]) -> io::Result<Self> {
        let mut checksum = Crc::new();
        checksum.update(document);
        let mut encoder = DeflateEncoder::new(HEADER.to_vec(), Compression::new(LEVEL));
        encoder.write_all(document)?;
        encoder.flush()?;
        let mut bytes = mem::take(encoder.get_mut());
        bytes.shrink_to_fit();
        Ok(Self { bytes: bytes.into(), checksum: Arc::new(checksum) })
    }

    /// The end of a member whose document continues with `more`.
    pub(super) fn end_with(&self, more: &[u8]) -> Bytes {
        let mut end = Vec::with_capacity(more.len() + 32);
        let mut blocks = more.chunks(MAX_STORED).peekable();
        while let Some(block) = blocks.next() {
            store(&mut end, block, blocks.peek().is_none());
        }
        if more.is_empty() {
            store(&mut end, more, true);
        }
        let mut checksum = Crc::new();
        checksum.combine(&self.checksum);
        checksum.update(more);
        end.extend(checksum.sum().to_le_bytes());
        end.extend(checksum.amount().to_le_bytes());
        end.into()
    }
}

fn store(out: &mut Vec<u8>, block: &[u8], is_last: bool) {
    // `chunks` gives no longer ones.
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
    out.push(u8::from(is_last));
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(block);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn compressed(document: &[u8], more: &[u8]) -> Vec<u8> {
        let beginning = Beginning::of(document).unwrap();
        [beginning.bytes.clone(), beginning.end_with(more)].concat()
    }

    /// One member, and nothing behind it.
    fn plain(compressed: &[u8]) -> Vec<u8> {
        let (mut decoder, mut plain) = (GzDecoder::new(compressed), Vec::new());
        decoder.read_to_end(&mut plain).unwrap();
        assert_eq!(decoder.into_inner(), b"");
        plain
    }

    #[test]
    fn both_parts_are_one_document() {
        let long = b"0123456789".repeat(20_000);
        for (document, more) in
            [(&b""[..], &b""[..]), (b"a", b""), (b"", b"b"), (b"a", b"b"), (&long, b"end"), (b"a", &long)]
        {
            assert_eq!(plain(&compressed(document, more)), [document, more].concat());
        }
    }

    proptest! {
        #[test]
        fn any_document_comes_back(document: Vec<u8>, more: Vec<u8>) {
            prop_assert_eq!(plain(&compressed(&document, &more)), [document, more].concat());
        }
    }
}
