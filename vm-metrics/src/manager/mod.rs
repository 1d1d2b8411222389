//! Keeps the state between ticks, and makes a snapshot in each.
//!
//! Other rooms hold a [`Manager`]. `engine` does one tick, and `tick` runs one after the other on a thread.

#![warn(missing_docs)]

mod backlog;
mod continuity;
mod engine;
mod health;
mod health_log;
mod lifecycle;
mod merge;
mod quota;
mod retain;
mod setup;
mod tick;
#[cfg(feature = "otel")]
mod weak;

use std::fmt;
use std::path::Path;
#[cfg(feature = "otel")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

pub use engine::ManagerError;
pub(crate) use setup::Setup;
pub use setup::StartError;
pub use tick::{TickThread, Ticker, Waker};

use crate::host::Host;
use crate::model::{ComponentKind, Health, InstanceInfo, MissedTicks, Snapshot, Trust, VmStats};
use crate::net::events::EventPoller;
use crate::readers::{Purpose, ReaderConfig};
use crate::sources::{InstanceSource, Sources};
use engine::Engine;

/// Collects the resource usage of the VMs of this host. Clones share one state; two managers that are made apart share
/// nothing.
///
/// A program that owns its list of VMs:
///
/// ```
/// use vm_metrics::{InstanceListerAdapter, InstanceData, Manager};
///
/// let manager = Manager::new();
/// manager.set_instance_source(InstanceListerAdapter::new(|| {
///     Ok(vec![InstanceData { id: "01234567".into(), hypervisor_pid: Some(std::process::id()), ..Default::default() }])
/// }));
/// let vms = manager.collect_all()?;
/// assert!(vms[0].cpu_seconds().is_some());
/// # Ok::<(), vm_metrics::CollectError>(())
/// ```
///
/// It blocks while it reads `/proc` and a netlink socket, some 10 ms per 1000 VMs. An async program calls it by
/// `spawn_blocking`, or uses a [`TickThread`].
#[derive(Clone)]
pub struct Manager {
    engine: Arc<Mutex<Engine>>,
    latest: Arc<Mutex<Option<Arc<Snapshot>>>>,
    host: Host,
    #[cfg(feature = "otel")]
    label_budget: Arc<AtomicUsize>,
}

/// The default number of VMs that OpenTelemetry shows before it warns.
#[cfg(feature = "otel")]
pub(crate) const DEFAULT_LABEL_BUDGET: usize = 200;

/// Why [`Manager::collect_all`] has no list.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("cannot list the VMs: source {source_name}: {reason}")]
pub struct CollectError {
    /// The name in the health report; `instance_source` is the one that was set.
    pub source_name: &'static str,
    /// As one sentence.
    pub reason: String,
}

impl Manager {
    /// Starts the readers. One that cannot start is reported in every snapshot, and logged once.
    pub(crate) fn start(
        sources: Sources,
        readers: Vec<ReaderConfig>,
        host: &Host,
        retention: Duration,
        state_dir: Option<&Path>,
        trust: &Trust,
        purpose: Purpose,
    ) -> Result<Self, ManagerError> {
        let engine = Engine::new(sources, readers, host, retention, state_dir, trust, purpose)?;
        Ok(Self {
            engine: Arc::new(Mutex::new(engine)),
            latest: Arc::default(),
            host: host.clone(),
            #[cfg(feature = "otel")]
            label_budget: Arc::new(AtomicUsize::new(DEFAULT_LABEL_BUDGET)),
        })
    }

    /// Sets the source that lists the VMs; replaces the one before. It takes precedence over the sources of a
    /// configuration. Without any source there are no VMs, which is no error.
    ///
    /// ```
    /// use vm_metrics::{Manager, build_instance_info};
    ///
    /// let manager = Manager::new();
    /// assert!(manager.collect_all()?.is_empty());
    /// manager.set_instance_source(vec![build_instance_info("a", "web", Some(std::process::id()), false, 2, 0)]);
    /// assert_eq!(manager.collect_all()?[0].instance_name, "web");
    /// # Ok::<(), vm_metrics::CollectError>(())
    /// ```
    pub fn set_instance_source(&self, source: impl InstanceSource + 'static) {
        self.engine().set_instance_source(Box::new(source));
    }

    /// Reads all running VMs: numbers of `/proc` and of the TAP devices, described at [`VmStats`].
    ///
    /// # Errors
    /// When a source cannot list its VMs: a list without them would look as if they had ended. A number that cannot be
    /// read is `None` and no error; [`collect`](Self::collect) has the reason.
    ///
    /// ```
    /// use vm_metrics::{InstanceListerAdapter, Manager};
    ///
    /// let manager = Manager::new();
    /// manager.set_instance_source(InstanceListerAdapter::new(|| Err("the database is away".into())));
    /// assert_eq!(manager.collect_all().unwrap_err().reason, "the database is away");
    /// ```
    pub fn collect_all(&self) -> Result<Vec<VmStats>, CollectError> {
        let snapshot = self.collect();
        let failed = |kind, state| kind == ComponentKind::Source && state == Health::Failed;
        match snapshot.components.iter().find(|component| failed(component.kind, component.health.state)) {
            Some(component) => {
                Err(CollectError { source_name: component.name, reason: component.health.reason.clone() })
            }
            None => Ok(snapshot.vms.iter().filter(|vm| vm.running).cloned().collect()),
        }
    }

    /// Reads all VMs once. The snapshot also has the last numbers of terminated VMs, and the health of each source and
    /// reader. The call itself cannot fail.
    ///
    /// ```
    /// let snapshot = vm_metrics::Manager::new().collect();
    /// let reader = snapshot.components.iter().find(|component| component.name == "proc_stat").unwrap();
    /// assert_eq!(reader.health.state.as_str(), "healthy");
    /// ```
    pub fn collect(&self) -> Arc<Snapshot> {
        self.tick(MissedTicks::default())
    }

    /// Reads one VM: this process and these interfaces. Where a source lists it otherwise, or not at all, its counters are
    /// the kernel's own. `None` when it does not run, or nothing can be read of it.
    ///
    /// ```
    /// use vm_metrics::{Manager, build_instance_info};
    ///
    /// let me = build_instance_info("me", "me", Some(std::process::id()), false, 1, 1 << 30);
    /// let stats = Manager::new().get_instance_stats(&me).unwrap();
    /// assert!(stats.memory_utilization_ratio() > Some(0.0));
    /// assert!(Manager::new().get_instance_stats(&build_instance_info("off", "off", None, false, 1, 0)).is_none());
    /// ```
    pub fn get_instance_stats(&self, info: &InstanceInfo) -> Option<VmStats> {
        info.hypervisor_pid?;
        let snapshot = if self.engine().knows(info) {
            self.collect()
        } else {
            // Readers of its own: to those of the engine all other VMs would have ended.
            let alone = Self::baseline(&self.host);
            alone.set_instance_source(vec![info.clone()]);
            alone.collect()
        };
        let is_it = |vm: &&VmStats| {
            vm.running && vm.instance_id == info.id && vm.hypervisor_pid == info.hypervisor_pid
        };
        let stats = snapshot.vms.iter().find(is_it)?;
        let is_read = [stats.process.cpu_usec, stats.process.memory_rss_bytes, stats.net_rx_bytes]
            .iter()
            .any(Option::is_some);
        is_read.then(|| stats.clone())
    }

    /// The last snapshot, of any caller; `None` before the first has ended. Waits for nothing.
    ///
    /// ```
    /// let manager = vm_metrics::Manager::new();
    /// assert!(manager.latest().is_none());
    /// manager.clone().collect();
    /// assert_eq!(manager.latest().unwrap().tick, 1);
    /// ```
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets how many VMs the OpenTelemetry instruments may show before the log warns; the default is 200, and 0 is no
    /// limit. It counts from the next collection on. `instances_observed` is the number of VMs, and
    /// `label_budget_exceeded_total` counts how often they became too many. See
    /// [`OtelOptions::over_budget`](crate::exporters::otel::OtelOptions::over_budget) for limits that hold.
    ///
    /// ```
    /// let manager = vm_metrics::Manager::new();
    /// manager.set_vm_label_budget(500);
    /// ```
    #[cfg(feature = "otel")]
    pub fn set_vm_label_budget(&self, vms: usize) {
        self.label_budget.store(vms, Ordering::Relaxed);
    }

    /// The present budget, for a caller that does not keep the manager alive.
    #[cfg(feature = "otel")]
    pub(crate) fn label_budget(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let budget = Arc::clone(&self.label_budget);
        move || budget.load(Ordering::Relaxed)
    }

    /// As [`collect`](Self::collect), for a caller that keeps time and knows the missed ticks.
    pub(crate) fn tick(&self, missed: MissedTicks) -> Arc<Snapshot> {
        self.tick_of(self.engine(), missed)
    }

    /// The snapshot is the latest before the next tick can begin.
    fn tick_of(&self, mut engine: MutexGuard<'_, Engine>, missed: MissedTicks) -> Arc<Snapshot> {
        let snapshot = engine.tick(missed);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// The events that call for an early tick.
    pub(crate) fn watch(&self) -> EventPoller {
        self.engine().watch()
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // A program's own source may panic; the state before that tick still holds.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
