//! The number of a sample: whole numbers stay whole until a format writes them.

use std::fmt;

/// When a counter was 0, in seconds of Unix time; `None` where nobody knows, and for gauges.
pub type Since = Option<f64>;

/// Numbers of one metric are all of one variant.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Number {
    Count(u64),
    Difference(i64),
    Real(f64),
}

impl Number {
    /// For formats that have only doubles. Whole numbers beyond 2^53 are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Count(number) => number as f64,
            Self::Difference(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    /// For formats that have no larger whole number than [`i64::MAX`].
    pub fn as_i64(self) -> i64 {
        match self {
            Self::Count(number) => i64::try_from(number).unwrap_or(i64::MAX),
            Self::Difference(number) => number,
            Self::Real(number) => number as i64,
        }
    }

    /// 0 of the same variant.
    pub fn zero(self) -> Self {
        match self {
            Self::Count(_) => Self::Count(0),
            Self::Difference(_) => Self::Difference(0),
            Self::Real(_) => Self::Real(0.0),
        }
    }

    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a.saturating_add(b)),
            (Self::Difference(a), Self::Difference(b)) => Self::Difference(a.saturating_add(b)),
            (a, b) => Self::Real(a.as_f64() + b.as_f64()),
        }
    }

    /// How much a counter has grown since it was at `last`. One that fell began anew at 0.
    pub fn growth(self, last: Self) -> Self {
        match (self, last) {
            _ if self < last => self,
            (Self::Count(now), Self::Count(last)) => Self::Count(now - last),
            (Self::Difference(now), Self::Difference(last)) => Self::Difference(now.saturating_sub(last)),
            (now, last) => Self::Real(now.as_f64() - last.as_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => number.fmt(f),
            Self::Difference(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_growth_of_counts_are_exact() {
        let large = Number::Count((1 << 53) + 1);
        assert_eq!(large.plus(Number::Count(2)), Number::Count((1 << 53) + 3));
        assert_eq!(large.growth(Number::Count(1 << 53)), Number::Count(1));
        assert_eq!(Number::Count(3).growth(large), Number::Count(3), "it began anew");
        assert_eq!(Number::Count(u64::MAX).plus(large), Number::Count(u64::MAX), "it never falls");
        assert_eq!(Number::Count(u64::MAX).as_i64(), i64::MAX);
    }
}
