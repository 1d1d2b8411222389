//! The tables `[sources.<name>]`, `[readers.<name>]` and `[exporters.<name>]`, each read by its owner.

use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::ConfigError;
use super::document::Document;
use super::keys::suggestion;

const ENABLED: &str = "enabled";

/// The sections below `sources`, `readers` or `exporters`.
#[derive(Clone, Debug)]
pub struct Sections {
    document: Document,
    /// `sources`, `readers` or `exporters`.
    of: &'static str,
    switched_off: Vec<&'static str>,
    taken: Vec<&'static str>,
}

impl Sections {
    pub(super) fn new(of: &'static str, document: &Document) -> Self {
        Self { document: document.clone(), of, switched_off: Vec::new(), taken: Vec::new() }
    }

    /// Disables a component, whatever its section has.
    pub fn switch_off(&mut self, names: impl IntoIterator<Item = &'static str>) {
        self.switched_off.extend(names);
    }

    /// Takes the section of this name; an empty one if it is missing.
    pub fn take(&mut self, name: &'static str) -> Section {
        self.taken.push(name);
        Section {
            document: self.document.clone(),
            of: self.of,
            name,
            switched_off: self.switched_off.contains(&name),
        }
    }

    /// Refuses a section without an owner.
    pub fn none_left(self) -> Result<(), ConfigError> {
        let mut root = self.document.parse()?;
        let Some(value) = root.get_mut().remove(self.of) else { return Ok(()) };
        let span = value.span();
        let DeValue::Table(sections) = value.into_inner() else {
            return Err(self.document.error_at(span, &format!("{}: must be tables, [{0}.<name>]", self.of)));
        };
        match sections.keys().find(|name| !self.taken.contains(&name.get_ref().as_ref())) {
            None => Ok(()),
            Some(name) => {
                let (of, name_typed) = (self.of, name.get_ref());
                let near = suggestion(name_typed, self.taken.iter().copied());
                let hint = match near {
                    Some(near) => format!("did you mean [{of}.{near}]?"),
                    None => format!("there are {}", self.taken.join(", ")),
                };
                let problem = format!("{of}.{name_typed}: no such section; {hint}");
                Err(self.document.error_at(name.span(), &problem))
            }
        }
    }
}

/// The key `enabled` of a source, or of an exporter that pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Off,
    /// Enabled if its input exists. A missing input is no fault.
    Auto,
    /// Enabled; a missing input is a fault.
    On,
}

/// One section, unparsed.
#[derive(Debug)]
pub struct Section {
    document: Document,
    of: &'static str,
    name: &'static str,
    switched_off: bool,
}

impl Section {
    /// The key `enabled` of a reader.
    pub fn enabled(&self, default: bool) -> Result<bool, ConfigError> {
        let mut table = self.table()?;
        let enabled = match table.get_mut().remove(ENABLED) {
            None => default,
            Some(value) => value
                .get_ref()
                .as_bool()
                .ok_or_else(|| self.refuse(value.span(), "enabled must be true or false"))?,
        };
        Ok(enabled && !self.switched_off)
    }

    /// The key `enabled` of a source, or of an exporter that pushes; `"auto"` by default.
    pub fn switch(&self) -> Result<Switch, ConfigError> {
        let mut table = self.table()?;
        let switch = match table.get_mut().remove(ENABLED) {
            None => Switch::Auto,
            Some(value) => match value.get_ref() {
                DeValue::Boolean(true) => Switch::On,
                DeValue::Boolean(false) => Switch::Off,
                DeValue::String(text) if text == "auto" => Switch::Auto,
                _ => return Err(self.refuse(value.span(), "enabled must be \"auto\", true or false")),
            },
        };
        Ok(if self.switched_off { Switch::Off } else { switch })
    }

    /// Whether the section has this key.
    pub fn has(&self, key: &str) -> Result<bool, ConfigError> {
        Ok(self.table()?.get_ref().keys().any(|name| name.get_ref() == key))
    }

    /// The other keys.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut table = self.table()?;
        table.get_mut().remove(ENABLED);
        let span = table.span();
        let value = Spanned::new(span.clone(), DeValue::Table(table.into_inner()));
        T::deserialize(ValueDeserializer::from(value))
            .map_err(|error| self.refuse(error.span().unwrap_or(span), error.message()))
    }

    /// Refuses every key but `enabled`.
    pub fn no_options(&self) -> Result<(), ConfigError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.options().map(|Nothing {}| ())
    }

    /// An error at the place of a key.
    pub fn refusal(&self, key: &str, problem: &str) -> ConfigError {
        let span = match self.table() {
            Ok(table) => {
                let found = table.get_ref().keys().find(|name| name.get_ref() == key).map(Spanned::span);
                found.unwrap_or_else(|| table.span())
            }
            Err(error) => return error,
        };
        self.refuse(span, &format!("{key}: {problem}"))
    }

    /// An error at a place of the document.
    pub fn refuse(&self, span: Range<usize>, problem: &str) -> ConfigError {
        self.document.error_at(span, &format!("{}.{}: {problem}", self.of, self.name))
    }

    fn table(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        let mut root = self.document.parse()?;
        let value = root.get_mut().remove(self.of).and_then(|sections| match sections.into_inner() {
            DeValue::Table(mut sections) => sections.remove(self.name),
            _ => None,
        });
        let Some(value) = value else { return Ok(Spanned::new(0..0, DeTable::new())) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(Spanned::new(span, table)),
            _ => Err(self.refuse(span, "must be a table")),
        }
    }
}
