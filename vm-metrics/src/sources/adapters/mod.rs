//! Adapters for programs that embed this library: list functions and instance managers.

#![warn(missing_docs)]

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::{InstanceSource, LIST_DEADLINE, Listing, SourceError};
use crate::model::{InstanceInfo, Nic, build_instance_info, tap_name};

/// An error of a caller's function.
type ListError = Box<dyn Error + Send + Sync>;

/// The minimal data of an instance, for [`build_instance_info`].
///
/// ```
/// let data = vm_metrics::InstanceData { id: "01234567".into(), allocated_vcpus: 2, ..Default::default() };
/// assert!(!data.network_enabled && data.hypervisor_pid.is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceData {
    /// Unique on this host; becomes the label `instance_id`, and by default the name of the TAP.
    pub id: String,
    /// For people; becomes the label `instance_name`.
    pub name: String,
    /// `None` when it does not run.
    pub hypervisor_pid: Option<u32>,
    /// Whether it has a TAP.
    pub network_enabled: bool,
    /// 0 when not known.
    pub allocated_vcpus: u32,
    /// Bytes, hot-plugged memory included; 0 when not known.
    pub allocated_memory_bytes: u64,
}

/// Makes a source of a function that lists [`InstanceData`].
///
/// ```
/// use vm_metrics::{InstanceData, InstanceListerAdapter, InstanceSource};
///
/// let mut source = InstanceListerAdapter::new(|| {
///     Ok(vec![InstanceData { id: "ABCDEFGH01".into(), network_enabled: true, ..Default::default() }])
/// });
/// let listing = source.list_running_instances_for_metrics()?;
/// assert_eq!(listing.instances[0].nics[0].tap, "hype-abcdefgh");
/// # Ok::<(), vm_metrics::SourceError>(())
/// ```
pub struct InstanceListerAdapter {
    list: Box<dyn FnMut() -> Result<Vec<InstanceData>, SourceError> + Send>,
    tap_name: Box<dyn Fn(&str) -> String + Send>,
    deadline: Duration,
}

impl InstanceListerAdapter {
    /// Of a function that lists. After an error its former listing counts for 30 seconds more.
    ///
    /// A tick waits two seconds for it, or another [deadline](Self::with_deadline). If it blocks for longer, ticks go on
    /// with the former listing, and it is called again once that call has returned. It runs on its own thread, within the
    /// tokio runtime of the program that collects.
    pub fn new(mut list: impl FnMut() -> Result<Vec<InstanceData>, ListError> + Send + 'static) -> Self {
        let list = move || list().map_err(|error| SourceError::Lister(error.into()));
        Self { list: Box::new(list), tap_name: Box::new(tap_name), deadline: LIST_DEADLINE }
    }

    /// Of an asynchronous function, which runs on `runtime`. A late answer is an error of this tick; the next tick takes
    /// it, without a second call.
    ///
    /// ```
    /// use std::time::Duration;
    /// use vm_metrics::{InstanceListerAdapter, InstanceSource};
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    /// let list = || async { Ok(Vec::new()) };
    /// let mut source = InstanceListerAdapter::from_async(runtime.handle().clone(), Duration::from_secs(5), list);
    /// assert!(source.list_running_instances_for_metrics()?.instances.is_empty());
    /// # Ok::<(), vm_metrics::SourceError>(())
    /// ```
    pub fn from_async<F>(
        runtime: Handle,
        deadline: Duration,
        mut list: impl FnMut() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Vec<InstanceData>, ListError>> + Send + 'static,
    {
        let mut asked: Option<Receiver<Result<Vec<InstanceData>, ListError>>> = None;
        let list = move || {
            let answer = asked.take().unwrap_or_else(|| {
                let (sender, answer) = mpsc::sync_channel(1);
                let listing = list();
                // Nobody waits for the answer when the source is gone.
                runtime.spawn(async move { drop(sender.send(listing.await)) });
                answer
            });
            match answer.recv_timeout(deadline) {
                Ok(listed) => listed.map_err(|error| SourceError::Lister(error.into())),
                Err(RecvTimeoutError::Timeout) => {
                    asked = Some(answer);
                    Err(SourceError::Late { deadline })
                }
                Err(RecvTimeoutError::Disconnected) => Err(SourceError::Ended),
            }
        };
        // The function has all of its own deadline.
        let deadline = deadline.saturating_add(Duration::from_secs(1));
        Self { list: Box::new(list), tap_name: Box::new(tap_name), deadline }
    }

    /// A tick waits for the function for so long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use vm_metrics::{InstanceListerAdapter, InstanceSource};
    ///
    /// let source = InstanceListerAdapter::new(|| Ok(Vec::new())).with_deadline(Duration::from_secs(5));
    /// assert_eq!(source.deadline(), Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Names TAPs by another rule than [`tap_name`]: from the id of an instance to the name of its TAP.
    ///
    /// ```
    /// use vm_metrics::{InstanceData, InstanceListerAdapter, InstanceSource};
    ///
    /// let prefix = String::from("vm-");
    /// let vm = InstanceData { id: "Ab".into(), network_enabled: true, ..Default::default() };
    /// let source = InstanceListerAdapter::new(move || Ok(vec![vm.clone()]));
    /// let mut source = source.with_tap_name(move |id| format!("{prefix}{id}"));
    /// assert_eq!(source.list_running_instances_for_metrics()?.instances[0].nics[0].tap, "vm-Ab");
    /// # Ok::<(), vm_metrics::SourceError>(())
    /// ```
    #[must_use]
    pub fn with_tap_name(mut self, rule: impl Fn(&str) -> String + Send + 'static) -> Self {
        self.tap_name = Box::new(rule);
        self
    }
}

impl InstanceSource for InstanceListerAdapter {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let info = |data: InstanceData| {
            let mut info = build_instance_info(
                &data.id,
                &data.name,
                data.hypervisor_pid,
                data.network_enabled,
                data.allocated_vcpus,
                data.allocated_memory_bytes,
            );
            for nic in &mut info.nics {
                nic.tap = (self.tap_name)(&data.id);
            }
            info
        };
        let listed = (self.list)()?;
        Ok(listed.into_iter().map(info).collect::<Vec<_>>().into())
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl fmt::Debug for InstanceListerAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceListerAdapter").finish_non_exhaustive()
    }
}

/// An instance of a manager, with its TAP.
///
/// ```
/// use vm_metrics::{InstanceInfo, InstanceUtilizationInfo};
///
/// let told = InstanceUtilizationInfo { id: "a".into(), tap_device: "tap0".into(), ..Default::default() };
/// let vm = InstanceInfo::from(told);
/// assert_eq!((vm.nics[0].tap.as_str(), vm.allocated_memory_bytes), ("tap0", None));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceUtilizationInfo {
    /// Unique on this host; becomes the label `instance_id`.
    pub id: String,
    /// For people; becomes the label `instance_name`.
    pub name: String,
    /// `None` when it does not run.
    pub hypervisor_pid: Option<u32>,
    /// Empty without network.
    pub tap_device: String,
    /// 0 when not known.
    pub allocated_vcpus: u32,
    /// Bytes, hot-plugged memory included; 0 when not known.
    pub allocated_memory_bytes: u64,
}

/// A manager of instances that can list those that run.
pub trait InstanceManager: Send {
    /// All instances that run now.
    ///
    /// # Errors
    /// Any failure of the manager. The former listing counts for a while.
    fn list_running_instances_info(&mut self) -> Result<Vec<InstanceUtilizationInfo>, ListError>;
}

/// Makes a source of an [`InstanceManager`].
///
/// ```
/// use vm_metrics::{InstanceManager, InstanceManagerAdapter, InstanceSource, InstanceUtilizationInfo};
///
/// struct Instances;
///
/// impl InstanceManager for Instances {
///     fn list_running_instances_info(
///         &mut self,
///     ) -> Result<Vec<InstanceUtilizationInfo>, Box<dyn std::error::Error + Send + Sync>> {
///         Ok(vec![InstanceUtilizationInfo { id: "a".into(), tap_device: "tap0".into(), ..Default::default() }])
///     }
/// }
///
/// let listing = InstanceManagerAdapter::new(Instances).list_running_instances_for_metrics()?;
/// assert_eq!(listing.instances[0].nics[0].tap, "tap0");
/// # Ok::<(), vm_metrics::SourceError>(())
/// ```
#[derive(Debug)]
pub struct InstanceManagerAdapter<M> {
    manager: M,
    deadline: Duration,
}

impl<M: InstanceManager> InstanceManagerAdapter<M> {
    /// The manager is asked for each tick, which waits for it for two seconds. One that blocks for longer holds up nothing,
    /// as [`InstanceListerAdapter::new`] says.
    pub fn new(manager: M) -> Self {
        Self { manager, deadline: LIST_DEADLINE }
    }

    /// A tick waits for the manager for so long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use vm_metrics::{InstanceManager, InstanceManagerAdapter, InstanceSource};
    ///
    /// fn of(manager: impl InstanceManager) -> impl InstanceSource {
    ///     InstanceManagerAdapter::new(manager).with_deadline(Duration::from_secs(5))
    /// }
    /// ```
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<M: InstanceManager> InstanceSource for InstanceManagerAdapter<M> {
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
        let listed = self.manager.list_running_instances_info();
        let listed = listed.map_err(|error| SourceError::Lister(error.into()))?;
        Ok(listed.into_iter().map(InstanceInfo::from).collect::<Vec<_>>().into())
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl From<InstanceUtilizationInfo> for InstanceInfo {
    fn from(info: InstanceUtilizationInfo) -> Self {
        let nics = if info.tap_device.is_empty() { Vec::new() } else { vec![Nic::local(info.tap_device)] };
        let without = build_instance_info(
            &info.id,
            &info.name,
            info.hypervisor_pid,
            false,
            info.allocated_vcpus,
            info.allocated_memory_bytes,
        );
        Self { nics, ..without }
    }
}

#[cfg(test)]
mod tests;
