//! Refuses long test names, first lines and sentences, and types that are no nouns.

use super::problem::Problem;
use super::prose::{self, Sentence};
use super::source::{Source, first_name, line_at};

const TEST_NAME_WORDS: usize = 8;
const FIRST_LINE_WORDS: usize = 15;
const SENTENCE_WORDS: usize = 30;

/// Participles and adjectives: the name of a type is a noun.
#[rustfmt::skip]
const NO_NOUNS: &[&str] = &[
    "Added", "Allowed", "Asked", "Attached", "Believed", "Blind", "Bound", "Broken", "Changed", "Checked", "Closed",
    "Configured", "Continued", "Counted", "Deleted", "Denied", "Departed", "Described", "Dropped", "Ended", "Empty",
    "Expected", "Failed", "Few", "Followed", "Found", "Given", "Gone", "Heard", "Held", "Kept", "Known", "Late", "Leaving",
    "Listed", "Loaded", "Lost", "Missing", "Moved", "Named", "New", "Old", "Open", "Opened", "Parsed", "Pending", "Pinned",
    "Published", "Pushed", "Read", "Ready", "Refused", "Removed", "Running", "Said", "Seen", "Several", "Shared", "Started",
    "Stopped", "Stored", "Taken", "Told", "Tried", "Trusted", "Unread", "Used", "Waiting", "Watched", "Watching", "Written",
];

pub fn problems(source: &Source) -> Vec<Problem> {
    let mut problems = test_names(source);
    problems.extend(first_line(source));
    problems.extend(type_names(source));
    problems.extend(sentences(&source.path, prose::of_comments(source)));
    problems
}

/// The sentences of a document.
pub fn markdown_problems(path: &str, text: &str) -> Vec<Problem> {
    sentences(path, prose::of_markdown(text.lines().zip(1..).map(|(line, number)| (number, line))))
}

fn test_names(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for attribute in ["#[test]", "#[tokio::test"] {
        for (at, _) in source.code.match_indices(attribute) {
            let Some(function) = source.code[at..].find("fn ") else { continue };
            let name = first_name(&source.code[at + function + 3..]);
            let words = name.split('_').filter(|word| !word.is_empty()).count();
            if words > TEST_NAME_WORDS {
                let text = format!("{words} words in `{name}`: at most {TEST_NAME_WORDS}");
                let line = line_at(&source.code, at + function);
                problems.push(Problem::new(&source.path, line, "test-name", text));
            }
        }
    }
    problems
}

fn first_line(source: &Source) -> Option<Problem> {
    let problem = |text: String| Some(Problem::new(&source.path, 1, "first-line", text));
    if !source.text.starts_with("//! ") {
        return problem("the file does not begin with `//! ` and a sentence on what it does".to_owned());
    }
    let words = prose::of_comments(source).first().map_or(0, |sentence| sentence.words);
    if words > FIRST_LINE_WORDS {
        return problem(format!("{words} words in the first sentence: at most {FIRST_LINE_WORDS}"));
    }
    None
}

fn type_names(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, _, name) in source.types() {
        if NO_NOUNS.contains(&name) {
            let text = format!("`{name}` is no noun: name the type for the thing that it is");
            problems.push(Problem::new(&source.path, line, "type-name", text));
        }
    }
    problems
}

fn sentences(path: &str, sentences: Vec<Sentence>) -> Vec<Problem> {
    let long = sentences.into_iter().filter(|sentence| sentence.words > SENTENCE_WORDS);
    long.map(|Sentence { line, words, start }| {
        let text = format!("{words} words in the sentence \"{start} …\": at most {SENTENCE_WORDS}");
        Problem::new(path, line, "sentence", text)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_names_have_eight_words() {
        let code = "//! A.\n#[test]\nfn a_b_c_d_e_f_g_h() {}\n#[test]\nfn a_b_c_d_e_f_g_h_i() {}\n\
                    #[tokio::test(flavor = \"x\")]\nasync fn a_b_c_d_e_f_g_h_i() {}\nfn a_b_c_d_e_f_g_h_i() {}\n";
        assert_eq!(found(code), [(5, "test-name"), (7, "test-name")]);
    }

    #[test]
    fn first_lines_have_fifteen_words() {
        let of = |words: usize| format!("//! {}.\n//! More of it.\n", vec!["word"; words].join(" "));
        assert_eq!(found(&of(15)), []);
        assert_eq!(found(&of(16)), [(1, "first-line")]);
        assert_eq!(found("use a;\n"), [(1, "first-line")]);
        // A sentence that goes on in the second line is as long as it is.
        let wrapped = format!("//! {}\n//! {}.\n", "word ".repeat(8).trim(), "word ".repeat(8).trim());
        assert_eq!(found(&wrapped), [(1, "first-line")]);
    }

    #[test]
    fn types_are_nouns() {
        let code = "//! A.\npub(crate) struct Told<T>(T);\nenum Gone {}\nstruct ToldTwice;\ntype Seen = u8;\n\
                    trait Known {}\nuse x::Read;\n// struct Late;\n";
        assert_eq!(found(code), [(2, "type-name"), (3, "type-name"), (5, "type-name"), (6, "type-name")]);
    }

    #[test]
    fn sentences_have_thirty_words() {
        let of = |words: usize| format!("//! A.\n\n// {}.\nlet a;\n", vec!["word"; words].join(" "));
        assert_eq!(found(&of(30)), []);
        assert_eq!(found(&of(31)), [(3, "sentence")]);
        let document = markdown_problems("a.md", &format!("# A\n\n{}.\n", "word ".repeat(31).trim()));
        assert_eq!(document.len(), 1);
    }

    fn found(code: &str) -> Vec<(usize, &'static str)> {
        problems(&Source::parse("a.rs", code)).iter().map(|problem| (problem.line, problem.rule)).collect()
    }
}
