//! Prints results of the commands, without control characters for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::model::is_unsafe;

/// Prints to standard output; a closed pipe is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    try_print(text).map(drop)
}

/// Prints to standard output; false if the pipe is closed.
pub(crate) fn try_print(text: &str) -> anyhow::Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// The same JSON document, with unsafe characters escaped. Only strings contain them, and JSON can escape each.
pub(crate) fn printable_json(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_unsafe(character) || character == '\n' {
            printable.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(printable, "\\u{unit:04x}");
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_the_same_document() {
        let name = "a\n\u{1b}\u{9b}2J\u{202e}\u{e0041}\u{7f}é";
        let printed = printable_json(&serde_json::to_string_pretty(&[name]).unwrap());
        assert!(printed.chars().all(|c| c == '\n' || !is_unsafe(c)), "{printed:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&printed).unwrap(), [name]);
    }
}
