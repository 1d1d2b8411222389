//! Splits comments and Markdown into sentences, and counts their words.

use super::source::Source;

/// A sentence with the number of its first line.
#[derive(Debug, PartialEq)]
pub struct Sentence {
    pub line: usize,
    pub words: usize,
    /// The first words, to find it by.
    pub start: String,
}

/// Words behind which a full stop ends no sentence.
const ABBREVIATIONS: &[&str] = &["e.g.", "i.e.", "vs.", "cf.", "etc.", "No."];

/// The sentences of each block of comments.
pub fn of_comments(source: &Source) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let mut block = Vec::new();
    let mut previous = (0, "");
    for (line, comment) in &source.comments {
        let (marker, text) = split_marker(comment);
        if *line != previous.0 + 1 || marker != previous.1 {
            sentences.extend(of_markdown(block.drain(..)));
        }
        block.push((*line, text));
        previous = (*line, marker);
    }
    sentences.extend(of_markdown(block.into_iter()));
    sentences
}

fn split_marker(comment: &str) -> (&str, &str) {
    let length = ["//!", "///"].iter().find(|marker| comment.starts_with(**marker)).map_or(2, |m| m.len());
    comment.split_at(length)
}

/// Sentences of text, list items and headings; not of tables and code.
pub fn of_markdown<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    let mut paragraph: Vec<(usize, String)> = Vec::new();
    let mut fenced = false;
    for (number, line) in lines {
        let line = line.trim().trim_start_matches("> ");
        let fence = line.starts_with("```");
        fenced ^= fence;
        let alone = fence || fenced || line.is_empty() || line.starts_with(['|', '#', '<']);
        let item = strip_item(line);
        if alone || item.is_some() {
            split_sentences(paragraph.drain(..), &mut sentences);
        }
        if !alone {
            paragraph.push((number, item.unwrap_or(line).to_owned()));
        }
    }
    split_sentences(paragraph.into_iter(), &mut sentences);
    sentences
}

/// The text of a list item, without its bullet or number.
fn strip_item(line: &str) -> Option<&str> {
    let digits = line.trim_start_matches(|character: char| character.is_ascii_digit());
    let numbered = || digits.strip_prefix(". ").filter(|_| digits.len() < line.len());
    line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")).or_else(numbered)
}

fn split_sentences(paragraph: impl Iterator<Item = (usize, String)>, sentences: &mut Vec<Sentence>) {
    let (lines, texts): (Vec<usize>, Vec<String>) = paragraph.unzip();
    let text = without_code_and_targets(&texts.join("\n"));
    let words =
        text.lines().zip(lines).flat_map(|(text, line)| text.split(' ').map(move |word| (line, word)));
    let mut sentence: Vec<(usize, &str)> = Vec::new();
    for (line, word) in words.filter(|(_, word)| word.chars().any(char::is_alphanumeric)) {
        sentence.push((line, word));
        let bare = word.trim_matches(['(', ')', '"', '*', '_', '\'', '[', ']']);
        if bare.ends_with(['.', '!', '?']) && !ABBREVIATIONS.contains(&bare) {
            push_sentence(&mut sentence, sentences);
        }
    }
    push_sentence(&mut sentence, sentences);
}

fn push_sentence(words: &mut Vec<(usize, &str)>, sentences: &mut Vec<Sentence>) {
    let Some((line, _)) = words.first() else { return };
    let start: Vec<&str> = words.iter().take(6).map(|(_, word)| *word).collect();
    sentences.push(Sentence { line: *line, words: words.len(), start: start.join(" ") });
    words.clear();
}

/// Inline code and the target of a link count as one word, whatever is in them. Lines are kept.
fn without_code_and_targets(text: &str) -> String {
    let mut plain = String::new();
    let mut in_code = false;
    let mut in_target = false;
    for character in text.chars() {
        match character {
            '`' => in_code = !in_code,
            '(' if !in_code && plain.ends_with(']') => in_target = true,
            ')' if in_target => in_target = false,
            '\n' => plain.push('\n'),
            _ if in_target => {}
            _ if in_code => plain.push(if character.is_alphanumeric() { character } else { '_' }),
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_full_stops() {
        let source = Source::parse("a.rs", "/// One two. Three\n/// four (e.g. five)!\n/// Six?\n");
        assert_eq!(counts(&of_comments(&source)), [(1, 2), (1, 4), (3, 1)]);
    }

    #[test]
    fn blocks_of_comments_stay_apart() {
        let source = Source::parse("a.rs", "//! One\n\n/// two\n// three\nlet a;\n// four\n//\n// five\n");
        assert_eq!(counts(&of_comments(&source)), [(1, 1), (3, 1), (4, 1), (6, 1), (8, 1)]);
    }

    #[test]
    fn tables_and_code_are_no_sentences() {
        let text = "# A b\n\none two\n| a | b |\n```sh\nx y z\n```\n- three\n  four\n- five\n1. six\n";
        let lines = text.lines().zip(1..).map(|(line, number)| (number, line));
        assert_eq!(counts(&of_markdown(lines)), [(3, 2), (8, 2), (10, 1), (11, 1)]);
    }

    #[test]
    fn inline_code_and_targets_are_one_word() {
        let text = "see `a b. c` and [the docs](http://x.y/z (a) b) now";
        assert_eq!(counts(&of_markdown([(1, text)].into_iter())), [(1, 7)]);
    }

    fn counts(sentences: &[Sentence]) -> Vec<(usize, usize)> {
        sentences.iter().map(|sentence| (sentence.line, sentence.words)).collect()
    }
}
