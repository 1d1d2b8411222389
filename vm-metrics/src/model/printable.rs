//! Text of others, made safe for a terminal or a line of a log.

use std::fmt::{self, Write};

/// Shows a text with an escape sequence such as `\u{1b}` in the place of each character that could move the cursor, end the
/// line, or turn the direction of writing.
///
/// Names and paths of VMs come from their processes: without this they could forge lines of the log.
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Writes on, escaped.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                write!(self.0, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Control characters (C0, DEL, C1), ends of lines and paragraphs, marks of direction, and what is not seen at all.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unsafe_is_left() {
        for code in 0..=0x10_ffff {
            let Some(character) = char::from_u32(code) else { continue };
            let shown = Printable(character).to_string();
            assert!(!shown.chars().any(is_unsafe), "{code:x}");
            assert_eq!(shown == character.to_string(), !is_unsafe(character), "{code:x}");
        }
        for character in ['\n', '\r', '\x1b', '\x7f', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}'] {
            assert!(is_unsafe(character), "{character:?}");
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        let text = "web-1 «größe» 数 C:\\n \"quoted\"";
        assert_eq!(Printable(text).to_string(), text);
        assert_eq!(Printable("a\nINFO b\x1b[2J\u{202e}").to_string(), "a\\nINFO b\\u{1b}[2J\\u{202e}");
    }
}
