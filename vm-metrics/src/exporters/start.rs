//! Starts the exporters; each shows the statistics of all.

use super::budget::LabelBudget;
use super::exporter_stats::ExporterStats;
use super::otlp::{OtlpConfig, PushError, Pusher};
use super::prometheus::PrometheusExporter;
use super::{ExportersConfig, View};
use crate::manager::Ticker;

/// The exporters with a thread of their own.
#[derive(Debug)]
pub(crate) struct ActiveExporters {
    pusher: Option<Pusher>,
}

impl ExportersConfig {
    pub(crate) fn start(
        self,
        prefix: &str,
        ticker: &Ticker,
    ) -> Result<(PrometheusExporter, ActiveExporters), PushError> {
        let mut stats = ExporterStats::starting();
        let scraped = LabelBudget::new("prometheus", self.prometheus.budget);
        stats.add_budget(scraped.counts());
        let start = |push: OtlpConfig| {
            let pushed = LabelBudget::new("otlp", push.budget());
            let groups = push.groups.clone();
            stats.add_budget(pushed.counts());
            let counts = stats.add_pushes();
            Pusher::start(push, View::new(stats.clone(), pushed, groups), counts, ticker.clone())
        };
        let pusher = self.otlp.map(start).transpose()?;
        let prometheus = PrometheusExporter::new(
            prefix,
            View::new(stats, scraped, self.prometheus.groups),
            ticker.clone(),
        );
        Ok((prometheus, ActiveExporters { pusher }))
    }
}

impl ActiveExporters {
    /// Pushes once more before the daemon ends.
    pub(crate) async fn leave(self) {
        if let Some(pusher) = self.pusher {
            pusher.leave().await;
        }
    }
}
