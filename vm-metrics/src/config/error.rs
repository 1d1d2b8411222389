//! The errors of a configuration, with file, line and key.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    /// The cause follows as the source of the error.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The key is empty if the line has none. The place is in bytes. Errors never repeat a value: it may be a secret.
    #[error("{}:{line}: {message}{}", path.display(), in_key(message, key))]
    Refused { path: PathBuf, line: usize, message: String, key: String, place: Range<usize> },
    #[error("variable {variable}: {problem}")]
    Environment { variable: String, problem: String },
    /// Several mistakes, one line for each.
    #[error("{}", Lines(errors))]
    Several { errors: Vec<ConfigError> },
}

impl ConfigError {
    /// Joins mistakes into one error.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        match (errors.len(), errors.pop()) {
            (1, Some(error)) => error,
            (_, last) => {
                errors.extend(last);
                errors.sort_by_key(Self::line);
                Self::Several { errors }
            }
        }
    }

    /// The single mistakes.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Several { errors } => errors,
            one => std::slice::from_ref(one),
        }
    }

    pub(super) fn into_each(self) -> Vec<Self> {
        match self {
            Self::Several { errors } => errors,
            one => vec![one],
        }
    }

    fn line(&self) -> usize {
        match self {
            Self::Refused { line, .. } => *line,
            _ => usize::MAX,
        }
    }

    /// Whether a missing key is a consequence of one of these mistakes, whose value was left out.
    pub(super) fn follows_from(&self, errors: &[Self]) -> bool {
        let Self::Refused { message, .. } = self else { return false };
        let Some((_, rest)) = message.split_once("the key `") else { return false };
        let Some((missing, _)) = rest.split_once("` is missing") else { return false };
        errors.iter().any(|error| match error {
            Self::Refused { key, .. } => key.rsplit('.').next() == Some(missing),
            _ => false,
        })
    }
}

struct Lines<'e>(&'e [ConfigError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Names the key unless the message does.
fn in_key(message: &str, key: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    if message.contains(name) { String::new() } else { format!(" in `{key}`") }
}
