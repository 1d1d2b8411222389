//! The text of a configuration with its overrides from the environment, and its line numbers.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::ConfigError;
use super::environment::Overrides;
use super::refused::{explain, key_at};

/// Limit of the reported mistakes.
const MAX_ERRORS: usize = 50;

/// A configuration as typed.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    path: PathBuf,
    text: Arc<str>,
    overrides: Arc<Overrides>,
    /// Places of refused values, which are left out to find further mistakes.
    left_out: Vec<usize>,
}

impl Document {
    pub(crate) fn new(path: &Path, text: &str) -> Self {
        Self::with(path, text, Overrides::default())
    }

    /// Variables of the environment take precedence over the text.
    pub(crate) fn with(path: &Path, text: &str, overrides: Overrides) -> Self {
        let overrides = Arc::new(overrides.after(text));
        Self { path: path.to_owned(), text: text.into(), overrides, left_out: Vec::new() }
    }

    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        let mut root = DeTable::parse(&self.text).map_err(|error| self.error_of_text(&error))?;
        self.overrides.apply(root.get_mut());
        for place in &self.left_out {
            leave_out(root.get_mut(), *place);
        }
        Ok(root)
    }

    /// The error of a text that is not TOML. A duplicate key is named, for a name is no secret value.
    fn error_of_text(&self, error: &toml::de::Error) -> ConfigError {
        let twice = error.span().filter(|_| error.message() == "duplicate key");
        match twice.and_then(|place| Some((self.text.get(place.clone())?, place))) {
            Some((key, place)) => self.error_at(place, &format!("the key `{key}` is there twice")),
            None => self.error(error),
        }
    }

    pub(super) fn error(&self, error: &toml::de::Error) -> ConfigError {
        self.error_at(error.span().unwrap_or(0..0), error.message())
    }

    pub(super) fn error_at(&self, place: Range<usize>, message: &str) -> ConfigError {
        if let Some((variable, key)) = self.overrides.at(place.start) {
            let problem = explain(message, key);
            return ConfigError::Environment { variable: variable.to_owned(), problem };
        }
        let line = self.line(place.start);
        let key = key_at(&self.text, &place);
        let message = explain(message, &key);
        ConfigError::Refused { path: self.path.clone(), line, message, key, place }
    }

    /// The variable, or file and line, of a place.
    pub(super) fn place(&self, place: usize) -> String {
        match self.overrides.at(place) {
            Some((variable, _)) => format!("variable {variable}"),
            None => format!("{}:{}", self.path.display(), self.line(place)),
        }
    }

    fn line(&self, place: usize) -> usize {
        let before = self.text.get(..place).unwrap_or(&self.text);
        before.matches('\n').count() + 1
    }

    /// Repeats the check without each refused value, so that all mistakes are reported at once.
    pub(crate) fn check_all<T>(
        mut self,
        check: impl Fn(&Self) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let mut errors = Vec::new();
        loop {
            let error = match check(&self) {
                Ok(value) if errors.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(error) => error,
            };
            let mut goes_on = false;
            for error in error.into_each() {
                goes_on |= self.leave_out(&error);
                let is_known =
                    errors.iter().any(|known: &ConfigError| known.to_string() == error.to_string());
                if !is_known && !error.follows_from(&errors) {
                    errors.push(error);
                }
            }
            if !goes_on || errors.len() >= MAX_ERRORS {
                break;
            }
        }
        Err(ConfigError::all(errors))
    }

    /// False if nothing can be left out, so that the next check would give the same error.
    fn leave_out(&mut self, error: &ConfigError) -> bool {
        let place = match error {
            ConfigError::Refused { place, .. } if !place.is_empty() => Some(place.start),
            ConfigError::Environment { variable, .. } => self.overrides.place_of(variable),
            _ => None,
        };
        let Some(place) = place.filter(|place| !self.left_out.contains(place)) else { return false };
        self.left_out.push(place);
        true
    }
}

/// Removes the innermost key or element at a place; false if there is none.
fn leave_out(table: &mut DeTable<'_>, place: usize) -> bool {
    let found = table.iter_mut().find_map(|(key, value)| {
        if key.span().contains(&place) {
            return Some((key.get_ref().to_string(), false));
        }
        let is_here = value.span().contains(&place);
        let inside = match value.get_mut() {
            DeValue::Table(table) => leave_out(table, place),
            DeValue::Array(elements) => leave_out_of(elements, place),
            _ => false,
        };
        (inside || is_here).then(|| (key.get_ref().to_string(), inside))
    });
    match found {
        Some((key, false)) => table.remove(key.as_str()).is_some(),
        Some((_, true)) => true,
        None => false,
    }
}

/// An element, or a key of one.
fn leave_out_of(elements: &mut DeArray<'_>, place: usize) -> bool {
    let before = elements.len();
    let mut is_in_one = false;
    let mut stays = |element: &mut Spanned<DeValue<'_>>| {
        let is_inside = match element.get_mut() {
            DeValue::Table(table) => leave_out(table, place),
            _ => false,
        };
        is_in_one |= is_inside;
        is_inside || !element.span().contains(&place)
    };
    *elements = elements.clone().into_iter().filter_map(|mut one| stays(&mut one).then_some(one)).collect();
    is_in_one || elements.len() < before
}
