//! Replaces the part of a page between two marks.

/// Returns `None` if the page has lost its marks.
pub fn replace(page: &str, (begin, end): (&str, &str), part: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{part}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_around_the_part_stays() {
        assert_eq!(replace("a<old>b", ("<", ">"), "new"), Some("a<new>b".to_owned()));
        assert_eq!(replace("no marks", ("<", ">"), "new"), None);
    }
}
