//! Variables of the environment that stand for keys: `VM_METRICS_READERS__TAP_EBPF__PIN` for `readers.tap_ebpf.pin`.

use toml::de::{DeTable, DeValue};

use super::keys::{self, suggestion};

/// Prefix of the variables.
const PREFIX: &str = "VM_METRICS_";

/// The short name of `VM_METRICS_LOG__LEVEL`.
const LOG: &str = "VM_METRICS_LOG";

const LOG_LEVEL: &str = "log.level";

/// The variables that are set, with their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    variables: Vec<Variable>,
    /// The variables as TOML, behind as many blanks as the file is long. So their places differ from those of the file.
    text: String,
}

#[derive(Clone, Debug)]
struct Variable {
    name: String,
    key: String,
    value: String,
    /// Start of its line in the text.
    place: usize,
}

impl Overrides {
    /// Overrides by these variables, and warnings about unknown names. Unknown names are no mistake: Kubernetes makes such
    /// variables for a service.
    pub(crate) fn of(variables: impl Iterator<Item = (String, String)>) -> (Self, Vec<String>) {
        let (mut overrides, mut warnings) = (Self::default(), Vec::new());
        let names: Vec<String> = keys::known().iter().map(|key| variable_of(&key.path)).collect();
        for (name, value) in variables.filter(|(name, _)| name.starts_with(PREFIX)) {
            let key = match names.iter().position(|known| *known == name) {
                Some(at) => keys::known()[at].path.clone(),
                None if name == LOG => LOG_LEVEL.to_owned(),
                None => {
                    let section = format!("{name}__");
                    let below = names.iter().find(|known| known.starts_with(&section));
                    let near = suggestion(&name, names.iter().map(String::as_str));
                    let near = match (below, near) {
                        (Some(below), _) => {
                            format!("; it names a section: write a key behind it, such as {below}")
                        }
                        (None, Some(near)) => format!("; did you mean {near}?"),
                        (None, None) => String::new(),
                    };
                    warnings.push(format!("the variable {name} stands for no key{near}"));
                    continue;
                }
            };
            overrides.variables.push(Variable { name, key, value, place: 0 });
        }
        // The full name takes precedence over the short one.
        let is_twice = overrides.variables.iter().filter(|variable| variable.key == LOG_LEVEL).count() > 1;
        overrides.variables.retain(|variable| !(is_twice && variable.name == LOG));
        overrides.variables.sort_by(|a, b| a.name.cmp(&b.name));
        warnings.sort();
        (overrides, warnings)
    }

    /// Moves the places behind those of a text.
    pub(super) fn after(mut self, text: &str) -> Self {
        self.text = " ".repeat(text.len()) + "\n";
        for variable in &mut self.variables {
            variable.place = self.text.len();
            self.text += &format!("{} = {}\n", variable.key, as_toml(&variable.value));
        }
        self
    }

    /// Replaces the values of the file.
    pub(super) fn apply<'d>(&'d self, root: &mut DeTable<'d>) {
        if let Ok(own) = DeTable::parse(&self.text) {
            put_over(root, own.into_inner(), "");
        }
    }

    /// The variable and the key at a place.
    pub(super) fn at(&self, place: usize) -> Option<(&str, &str)> {
        let variable = self.variables.iter().rev().find(|variable| variable.place <= place)?;
        Some((&variable.name, &variable.key))
    }

    /// The place of a variable, at the last part of its key.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        let variable = self.variables.iter().find(|variable| variable.name == name)?;
        Some(variable.place + variable.key.rfind('.').map_or(0, |dot| dot + 1))
    }

    /// The keys and the variables that replace them.
    pub(crate) fn origins(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|variable| (variable.key.as_str(), variable.name.as_str()))
    }
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Parses a value as TOML (`true`, `5`, `["a", "b"]`), and takes anything else as text (`1s`, `/run/x`).
fn as_toml(value: &str) -> String {
    let is_one_value = |table: toml::Table| table.len() == 1;
    match toml::from_str(&format!("value = {value}")).is_ok_and(is_one_value) {
        true => value.to_owned(),
        false => toml::Value::String(value.to_owned()).to_string(),
    }
}

fn put_over<'d>(base: &mut DeTable<'d>, over: DeTable<'d>, path: &str) {
    for (key, value) in over {
        let path =
            if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        let span = value.span();
        match (value.into_inner(), base.get_mut(&key).map(|known| known.get_mut())) {
            (DeValue::Table(over), Some(DeValue::Table(base))) if !keys::is_known(&path) => {
                put_over(base, over, &path);
            }
            (value, _) => {
                base.remove(&key);
                base.insert(key, toml::Spanned::new(span, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_told_a_key_behind_it() {
        let variables = [("VM_METRICS_READERS".to_owned(), "x".to_owned())].into_iter();
        let (_, warnings) = Overrides::of(variables);
        assert!(warnings[0].contains("write a key behind it, such as VM_METRICS_READERS__"), "{warnings:?}");
    }
}
