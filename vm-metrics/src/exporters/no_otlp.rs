//! In the place of `otlp` in a build without OpenTelemetry: there is no push, and whoever asks for one is told.

use std::convert::Infallible;
use std::sync::Arc;

use super::View;
use super::budget::Budget;
use super::exports::PushCounts;
use crate::config::{ConfigError, Section, Settings, Switch};
use crate::manager::Ticker;

#[derive(Debug)]
pub(crate) enum Push {}

#[derive(Debug)]
pub(crate) enum Pusher {}

pub(crate) type PushError = Infallible;

pub(crate) fn configure(
    section: &Section,
    _: &Settings,
    _: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Push>, ConfigError> {
    match section.switch()? {
        Switch::On => Err(section.refusal("enabled", "this build cannot push over OTLP")),
        Switch::Auto | Switch::Off => Ok(None),
    }
}

impl Push {
    pub(crate) fn budget(&self) -> Budget {
        match *self {}
    }
}

impl Pusher {
    pub(crate) fn start(push: Push, _: View, _: Arc<PushCounts>, _: Ticker) -> Result<Self, PushError> {
        match push {}
    }

    #[expect(clippy::unused_async, reason = "there is nothing to wait for")]
    pub(crate) async fn leave(self) {
        match self {}
    }
}
