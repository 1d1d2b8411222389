//! The samples of a run, by figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A key such as `tick_1hz.default` has one sample of each round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    pub fn add(&mut self, key: impl Into<String>, sample: f64) {
        self.0.entry(key.into()).or_default().push(sample);
    }

    /// Returns `None` for a figure without samples.
    pub fn median(&self, key: &str) -> Option<f64> {
        self.0.get(key).map(|samples| median(samples))
    }

    /// Returns the medians of all keys with this prefix, by the rest of the key.
    pub fn medians_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(key, samples)| Some((key.strip_prefix(prefix)?, median(samples))))
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ignore_outliers() {
        let mut figures = Figures::default();
        for sample in [3.0, 900.0, 1.0, 2.0] {
            figures.add("a.b", sample);
        }
        assert_eq!(figures.median("a.b"), Some(2.5));
        figures.add("a.b", 0.0);
        assert_eq!(figures.median("a.b"), Some(2.0));
        assert_eq!(figures.median("a"), None, "not measured");
        assert_eq!(figures.medians_below("a.").collect::<Vec<_>>(), [("b", 2.0)]);
    }
}
