//! Splits a push into requests of limited size.
//!
//! By default gRPC servers refuse messages of more than 4 MiB.

use std::mem;

use crate::exporters::families::{Family, Sample};

/// Bytes of a request, as they are estimated here.
const LIMIT: usize = 2 << 20;

/// Bytes of a point without its attributes: two times, the number, and their tags.
const POINT: usize = 40;

/// Of one attribute, beside the text of its name and value.
const ATTRIBUTE: usize = 16;

/// No request has more points, of one metric or of all.
pub(super) const MAX_POINTS: usize = LIMIT / POINT;

/// Each has all families, in their order, and some of the samples.
pub(super) fn chunks(mut families: Vec<Family>) -> Vec<Vec<Family>> {
    let samples: Vec<Vec<Sample>> =
        families.iter_mut().map(|family| mem::take(&mut family.samples)).collect();
    let mut chunks = Vec::new();
    let mut chunk = families.clone();
    let mut size = 0;
    for (at, samples) in samples.into_iter().enumerate() {
        for sample in samples {
            let more = bytes(&families[at], &sample);
            if size > 0 && size + more > LIMIT {
                chunks.push(mem::replace(&mut chunk, families.clone()));
                size = 0;
            }
            chunk[at].samples.push(sample);
            size += more;
        }
    }
    chunks.push(chunk);
    chunks
}

/// About what the point takes in a message.
fn bytes(family: &Family, sample: &Sample) -> usize {
    let attributes = family.metric.labels.iter().zip(&sample.labels);
    POINT + attributes.map(|(label, value)| ATTRIBUTE + label.name.len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::families;
    use crate::exporters::metrics::Number;

    /// The families, the first two with so many samples of labels that are so long.
    fn families(samples: usize, length: usize) -> Vec<Family> {
        let mut families = families::names();
        for family in &mut families[..2] {
            let label = |sample| format!("{sample}{}", "-".repeat(length));
            let sample = |sample| Sample {
                labels: vec![label(sample); family.metric.labels.len()],
                value: Number::Count(1),
                since: None,
            };
            family.samples = (0..samples).map(sample).collect();
        }
        families
    }

    #[test]
    fn chunks_are_small_and_lose_nothing() {
        let whole = families(1000, 1000);
        let chunks = chunks(whole.clone());
        let size = |chunk: &[Family]| {
            let of =
                |family: &Family| family.samples.iter().map(|sample| bytes(family, sample)).sum::<usize>();
            chunk.iter().map(of).sum::<usize>()
        };
        assert!(chunks.len() > 2 && chunks.iter().all(|chunk| (1..=LIMIT).contains(&size(chunk))));
        for (at, family) in whole.iter().enumerate() {
            let together: Vec<_> = chunks.iter().flat_map(|chunk| chunk[at].samples.clone()).collect();
            assert!(together == family.samples, "{}", family.metric.name);
        }
    }

    #[test]
    fn a_small_push_is_one_chunk() {
        assert_eq!(chunks(families(0, 0)).len(), 1);
        assert_eq!(chunks(families(10, 10)).len(), 1);
        assert_eq!(chunks(families(1, LIMIT)).len(), 2, "one that is larger is alone");
    }
}
