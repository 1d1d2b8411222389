//! One violation of a rule, with the place to mend it.

use std::fmt;

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// Below the root of the workspace.
    pub path: String,
    pub line: usize,
    /// The name by which `exceptions.txt` lists the rule.
    pub rule: &'static str,
    pub text: String,
}

impl Problem {
    pub fn new(path: &str, line: usize, rule: &'static str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.text)
    }
}
