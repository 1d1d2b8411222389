//! How instruments are called.

use serde::Deserialize;

use super::conventions;
use super::instrument::{self, Instrument};
use crate::exporters::families::Family;

/// Names, kinds and attributes of the instruments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// The names and labels of `/metrics`: `vm_cpu_seconds_total`.
    #[default]
    Prometheus,
    /// Those of the semantic conventions of OpenTelemetry: `vm.cpu.time`.
    Otel,
}

impl Naming {
    /// Instruments that show these families.
    pub(super) fn instruments<'f>(
        self,
        prefix: &str,
        families: impl IntoIterator<Item = (usize, &'f Family)>,
    ) -> Vec<Instrument> {
        match self {
            Self::Prometheus => instrument::with_prometheus_names(prefix, families),
            Self::Otel => conventions::instruments(prefix, families),
        }
    }
}
