//! Why a configuration is refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    /// The cause follows as the source of the error.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The key is empty where the line has none. Its value is never repeated: it may be a secret.
    #[error("{}:{line}: {message}{}", path.display(), in_key(message, key))]
    Refused { path: PathBuf, line: usize, message: String, key: String },
    #[error("variable {variable}: {problem}")]
    Environment { variable: String, problem: String },
}

/// Names the key unless the message does.
fn in_key(message: &str, key: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    if message.contains(name) { String::new() } else { format!(" in `{key}`") }
}
