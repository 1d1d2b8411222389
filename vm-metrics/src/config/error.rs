//! Why a configuration is refused.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    /// The cause follows as the source of the error.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {message} in `{text}`", path.display())]
    Refused { path: PathBuf, line: usize, message: String, text: String },
    #[error("variable {variable}: {problem}")]
    Environment { variable: String, problem: String },
}
