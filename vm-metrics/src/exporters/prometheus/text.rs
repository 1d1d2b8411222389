//! Writes families in the text format, whole numbers exactly. The crate's encoder has only doubles.

use std::fmt::{self, Display, Write};

use crate::exporters::families::{Family, Sample};
use crate::exporters::metrics::Kind;

/// Appends a family that has samples.
pub(super) fn write(prefix: &str, family: &Family, text: &mut String) -> fmt::Result {
    let (name, metric) = (family.full_name(prefix), family.metric);
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Amount => "gauge",
    };
    writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help)?;
    for Sample { labels, value, .. } in &family.samples {
        text.write_str(&name)?;
        let mut before = '{';
        // To Prometheus an empty label is none.
        for (label, value) in metric.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty()) {
            write!(text, "{before}{}=\"{}\"", label.name, Escaped(value))?;
            before = ',';
        }
        writeln!(text, "{} {value}", if before == ',' { "}" } else { "" })?;
    }
    Ok(())
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.strip_suffix(['\\', '"', '\n']) {
                None => f.write_str(part)?,
                Some(plain) if part.ends_with('\n') => write!(f, "{plain}\\n")?,
                Some(plain) => write!(f, "{plain}\\{}", &part[plain.len()..])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        for (label, expected) in [("", ""), ("a", "a"), (r#"\a"b"#, r#"\\a\"b"#), ("\n\n\"", r#"\n\n\""#)] {
            assert_eq!(Escaped(label).to_string(), expected);
        }
    }
}
