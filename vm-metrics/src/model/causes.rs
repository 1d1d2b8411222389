//! An error with its causes in one sentence, each cause told once.

use std::error::Error;

/// The causes, outermost first. Many errors name their cause in their own text.
pub(crate) fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot open it: {source}")]
    struct ErrorWithCause {
        source: io::Error,
    }

    #[derive(Debug, Error)]
    #[error("cannot start")]
    struct ErrorWithoutCause {
        source: ErrorWithCause,
    }

    #[test]
    fn each_cause_is_told_once() {
        let error = ErrorWithoutCause { source: ErrorWithCause { source: io::Error::other("no room") } };
        assert_eq!(in_one_line(&error), "cannot start: cannot open it: no room");
        let error = anyhow::Error::new(error).context("serve");
        assert_eq!(in_one_line(error.as_ref()), "serve: cannot start: cannot open it: no room");
    }
}
