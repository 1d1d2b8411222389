//! The checks, as lines for people and as JSON.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use serde::Serialize;

use crate::model::Printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sign {
    /// It works.
    Good,
    /// It works partly.
    Partly,
    /// It is enabled and does not work.
    Bad,
    /// It is missing here, or not enabled.
    Absent,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) result: Sign,
    name: String,
    detail: String,
    /// The remedy.
    remedy: Option<String>,
}

impl Check {
    pub(super) fn new(result: Sign, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { result, name: name.into(), detail: detail.into(), remedy: None }
    }

    /// Adds the place in the configuration.
    pub(super) fn with_place(mut self, place: &str) -> Self {
        self.detail = format!("{} ({place})", self.detail);
        self
    }

    pub(super) fn with_remedy(self, remedy: Option<String>) -> Self {
        Self { remedy, ..self }
    }
}

/// How the list is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    is_utf8: bool,
    has_colors: bool,
}

impl Style {
    /// Chosen by the locale, the terminal and the variable `NO_COLOR`.
    pub(super) fn of_output() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let has_colors = io::stdout().is_terminal() && set("NO_COLOR").is_none();
        Self { is_utf8: locale.is_some_and(|locale| is_utf8(&locale)), has_colors }
    }

    fn sign(self, sign: Sign) -> String {
        let (text, color) = match (sign, self.is_utf8) {
            (Sign::Good, true) => ("✓", 32),
            (Sign::Good, false) => ("ok", 32),
            (Sign::Partly, true) => ("!", 33),
            (Sign::Partly, false) => ("!!", 33),
            (Sign::Bad, true) => ("✗", 31),
            (Sign::Bad, false) => ("NO", 31),
            (Sign::Absent, true) => ("–", 2),
            (Sign::Absent, false) => ("--", 2),
        };
        if self.has_colors { format!("\u{1b}[{color}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn is_utf8(locale: &str) -> bool {
    let encoding = locale.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    encoding.starts_with("utf-8") || encoding.starts_with("utf8")
}

/// One line for each check, and one more for its remedy.
pub(super) fn render(checks: &[Check], style: Style) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Check { result, name, detail, remedy } in checks {
        let sign = style.sign(*result);
        let _ = writeln!(text, "{sign} {:<width$}  {}", Printable(name).to_string(), Printable(detail));
        let arrow = if style.is_utf8 { "→" } else { "->" };
        // Further lines are for the configuration.
        for (at, line) in remedy.iter().flat_map(|remedy| remedy.lines()).enumerate() {
            let arrow = if at == 0 { arrow } else { "  " };
            let _ = writeln!(text, "{:width$}    {arrow} {}", "", Printable(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_shows_its_sign_and_remedy() {
        let checks = [
            Check::new(Sign::Good, "a", "works"),
            Check::new(Sign::Bad, "long", "does\u{1b} not").with_remedy(Some("mend it".to_owned())),
            Check::new(Sign::Absent, "b", "not here"),
        ];
        let style = Style { is_utf8: true, has_colors: false };
        let expected = "✓ a     works\n✗ long  does\\u{1b} not\n        → mend it\n– b     not here\n";
        assert_eq!(render(&checks, style), expected);
        let ascii = render(&checks, Style { is_utf8: false, has_colors: false });
        assert!(ascii.is_ascii() && ascii.starts_with("ok a     works\nNO long"), "{ascii}");
        let colored = render(&checks, Style { is_utf8: true, has_colors: true });
        assert!(colored.starts_with("\u{1b}[32m✓\u{1b}[0m a"), "{colored}");
    }

    #[test]
    fn the_locale_says_whether_it_is_utf_8() {
        assert!(["C.UTF-8", "en_US.utf8", "de_DE.UTF-8@euro"].iter().all(|locale| is_utf8(locale)));
        assert!(!["C", "POSIX", "en_US.ISO-8859-1"].iter().any(|locale| is_utf8(locale)));
    }
}
