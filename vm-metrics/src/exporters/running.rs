//! Starts the exporters, and has each show how all of them do.

use super::budget::LabelBudget;
use super::exports::Exports;
use super::otlp::{Push, PushError, Pusher};
use super::prometheus::PrometheusExporter;
use super::{Configured, View};
use crate::manager::Ticker;

/// The exporters that need nobody to ask them.
#[derive(Debug)]
pub(crate) struct Running {
    pusher: Option<Pusher>,
}

impl Configured {
    pub(crate) fn start(
        self,
        prefix: &str,
        ticker: &Ticker,
    ) -> Result<(PrometheusExporter, Running), PushError> {
        let mut exports = Exports::starting();
        let scraped = LabelBudget::new("prometheus", self.prometheus);
        exports.add_budget(scraped.counts());
        let start = |push: Push| {
            let pushed = LabelBudget::new("otlp", push.budget());
            exports.add_budget(pushed.counts());
            let counts = exports.add_pushes();
            Pusher::start(push, View::new(exports.clone(), pushed), counts, ticker.clone())
        };
        let pusher = self.otlp.map(start).transpose()?;
        let prometheus = PrometheusExporter::new(prefix, View::new(exports, scraped), ticker.clone());
        Ok((prometheus, Running { pusher }))
    }
}

impl Running {
    /// Says what there is to say before the end.
    pub(crate) async fn leave(self) {
        if let Some(pusher) = self.pusher {
            pusher.leave().await;
        }
    }
}
