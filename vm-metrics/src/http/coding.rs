//! The content coding that a request asks for by `Accept-Encoding` (RFC 9110, section 12.5.3).

use axum::http::{HeaderMap, header};

/// How the body of an answer is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
}

/// A weight in thousandths; 0 is "not acceptable".
type Weight = u16;

impl Coding {
    /// gzip if the request names it, or `*`, and does not prefer the plain document.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let text = text.join(",");
        let of = |coding: &str| -> Option<Weight> {
            let named = elements(&text).find(|(name, _)| name.eq_ignore_ascii_case(coding));
            named.map(|(_, weight)| weight)
        };
        let any = of("*");
        let gzip = of("gzip").or_else(|| of("x-gzip")).or(any).unwrap_or(0);
        // A request that does not name the plain document accepts it as the last choice.
        let plain = of("identity").unwrap_or(0);
        if gzip > 0 && gzip >= plain { Self::Gzip } else { Self::Plain }
    }
}

/// Names and weights. An invalid weight counts as 0.
fn elements(text: &str) -> impl Iterator<Item = (&str, Weight)> {
    text.split(',').map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name, weight.map_or(1000, |text| thousandths(text).unwrap_or(0)))
    })
}

/// `0`, `0.5`, `1.000`: at most three digits behind the point, and no more than 1.
fn thousandths(text: &str) -> Option<Weight> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = matches!(whole, "0" | "1") && fraction.len() <= 3;
    if !is_weight || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let weight = format!("{whole}{fraction:0<3}").parse().ok()?;
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn negotiate(values: &[&str]) -> Coding {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
        }
        Coding::negotiate(&headers)
    }

    #[test]
    fn gzip_is_taken_where_it_is_asked_for() {
        for values in [
            &["gzip"][..],
            &["GZip"],
            &["x-gzip"],
            &["deflate, gzip, br, zstd"],
            &["gzip;q=0.001"],
            &["gzip ; Q=1.000"],
            &["br", "gzip"],
            &["*"],
            &["*;q=0.1, br"],
            &["identity;q=0.5, *;q=0.5"],
            &["identity, gzip"],
            &["gzip, identity;q=0"],
        ] {
            assert_eq!(negotiate(values), Coding::Gzip, "{values:?}");
        }
    }

    #[test]
    fn the_document_is_plain_otherwise() {
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["br, zstd"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["identity, gzip;q=0.9"],
            &["gzip;q=0.5, identity;q=0.8"],
            &["gzip;q=many"],
            &["gzip;q=1.5"],
            &["gzip;q=0.0001"],
            &["gzipped"],
        ] {
            assert_eq!(negotiate(values), Coding::Plain, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_has_a_coding(text in "[ -~]{0,60}") {
            negotiate(&[&text]);
        }
    }
}
