//! Command lines of long options, as Cloud Hypervisor and Firecracker have them.

/// `--flag`, `--option value`, `--option value value` and `--option=value`, up to a lone `--`.
#[derive(Debug)]
pub struct LongOptions<'a> {
    options: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> LongOptions<'a> {
    pub fn new(argv: &'a [String]) -> Self {
        let mut options = Vec::new();
        let words = argv.iter().skip(1).map(String::as_str);
        let mut words = words.take_while(|word| *word != "--").peekable();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                continue;
            };
            let (option, first) = match option.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (option, words.next_if(|next| !next.starts_with("--"))),
            };
            let mut values: Vec<_> = first.into_iter().collect();
            // Behind the first value, `-v` is an option in its short spelling.
            while let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                values.push(value);
            }
            options.push((option, values));
        }
        Self { options }
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == option)
    }

    /// All values of an option, also if it is repeated.
    pub fn values(&self, option: &str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |(name, _)| *name == option)
            .flat_map(|(_, values)| values.iter().copied())
    }

    /// The value that counts, of an option that takes one.
    pub fn value(&self, option: &str) -> Option<&'a str> {
        self.values(option).last()
    }
}

#[cfg(test)]
mod tests {
    use super::super::argv;
    use super::*;

    #[test]
    fn all_spellings() {
        let line = argv("ch stray --net a=1 b=2 -v --flag --net=c=3 --id -x --last -- --id other");
        let options = LongOptions::new(&line);
        assert_eq!(options.values("net").collect::<Vec<_>>(), ["a=1", "b=2", "c=3"]);
        assert_eq!(options.value("id"), Some("-x"));
        assert_eq!(options.value("flag"), None);
        assert!(options.has("flag") && options.has("last") && !options.has("v"));
    }
}
