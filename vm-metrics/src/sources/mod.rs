//! Who exists. A source lists the VMs it knows; it never reads what they use.
//!
//! A new source is a file with a [`SourceDef`], a `mod` line and a line in [`SOURCES`].

mod files;
mod merge;
pub mod proc_scan;
pub mod static_list;
mod written_pid;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use self::merge::merge_listings;
use self::merge::{GivenIds, merge_again};
use crate::config::{ConfigError, Section, Sections};
use crate::host::Host;
use crate::model::{InstanceInfo, VmSet};

/// All sources. Where two describe the same VM, the earlier one's word counts.
pub const SOURCES: &[SourceDef] = &[static_list::SOURCE, proc_scan::SOURCE];

/// How long the VMs of a source that fails are still listed. Without a free descriptor, say, nothing can be listed for a
/// moment, and that must not end every series; but nor may a VM that has ended seem to run for long.
const KEEP_LISTING: Duration = Duration::from_secs(30);

/// A line of the table of sources.
#[derive(Debug)]
pub struct SourceDef {
    /// Names the source in metrics and in health, and its section `[sources.<name>]`.
    pub name: &'static str,
    pub help: &'static str,
    /// Makes the source from its section; `None` when it has nothing to list.
    configure: Configure,
}

type Configure = fn(&Section, &Host) -> Result<Option<Box<dyn InstanceSource>>, ConfigError>;

/// Checks the sections `[sources.<name>]` against the table.
pub fn configure(mut sections: Sections, host: &Host) -> Result<Sources, ConfigError> {
    let mut sources = Sources::new(Vec::new());
    for def in SOURCES {
        let section = sections.take(def.name);
        let source = (def.configure)(&section, host)?;
        match source {
            Some(source) if section.enabled()? => sources.sources.push(Asked::new(def.name, source)),
            _ => sources.switched_off.push(def.name),
        }
    }
    sections.none_left()?;
    Ok(sources)
}

/// Knows which VMs run on this host.
pub trait InstanceSource: Send {
    /// Every VM that runs now. What could not be looked at is a problem in the listing, not an error: the
    /// others are still listed.
    fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError>;
}

/// What a source found, and what it could not look at.
#[derive(Debug, Default)]
pub struct Listing {
    pub instances: Vec<InstanceInfo>,
    pub problems: Vec<SourceError>,
}

impl From<Vec<InstanceInfo>> for Listing {
    fn from(instances: Vec<InstanceInfo>) -> Self {
        Self { instances, problems: Vec::new() }
    }
}

#[derive(Clone, Debug, Error)]
pub enum SourceError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("process {pid}: {problem}")]
    Process { pid: u32, problem: String },
    #[error("and {count} more problems")]
    More { count: usize },
}

impl SourceError {
    pub fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source: Arc::new(source) }
    }

    /// The error number of the kernel, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// The sources in use, asked as one.
pub struct Sources {
    sources: Vec<Asked>,
    switched_off: Vec<&'static str>,
    given_ids: GivenIds,
}

/// A source and what it answered last.
struct Asked {
    name: &'static str,
    source: Box<dyn InstanceSource>,
    last: Option<(Instant, Vec<InstanceInfo>)>,
}

/// How it went with one source.
#[derive(Clone, Debug)]
pub struct SourceReport {
    pub name: &'static str,
    /// How many VMs it listed.
    pub result: Result<usize, SourceError>,
    pub problems: Vec<String>,
    pub duration: Duration,
}

impl Sources {
    /// The most trusted source first.
    pub fn new(sources: Vec<(&'static str, Box<dyn InstanceSource>)>) -> Self {
        let sources = sources.into_iter().map(|(name, source)| Asked::new(name, source)).collect();
        Self { sources, switched_off: Vec::new(), given_ids: GivenIds::default() }
    }

    /// The sources that the configuration turned off, or gave nothing to list.
    pub fn switched_off(&self) -> &[&'static str] {
        &self.switched_off
    }

    /// Asks each source. One that fails does not hinder the others, and keeps the VMs it listed last for a while.
    pub fn list(&mut self) -> (VmSet, Vec<SourceReport>) {
        self.list_at(Instant::now())
    }

    fn list_at(&mut self, now: Instant) -> (VmSet, Vec<SourceReport>) {
        let (listings, mut reports): (Vec<_>, Vec<_>) =
            self.sources.iter_mut().map(|source| source.list_at(now)).unzip();
        let (vms, problems) = merge_again(listings, &mut self.given_ids);
        for (report, problems) in reports.iter_mut().zip(problems) {
            report.problems.extend(problems);
        }
        (VmSet { vms }, reports)
    }
}

impl Asked {
    fn new(name: &'static str, source: Box<dyn InstanceSource>) -> Self {
        Self { name, source, last: None }
    }

    fn list_at(&mut self, now: Instant) -> (Vec<InstanceInfo>, SourceReport) {
        let began = Instant::now();
        let listing = self.source.list_running_instances_for_metrics();
        let duration = began.elapsed();
        let (result, problems) = match listing {
            Ok(Listing { instances, problems }) => {
                let count = instances.len();
                self.last = Some((now, instances));
                (Ok(count), problems.iter().map(ToString::to_string).collect())
            }
            Err(error) => {
                self.last.take_if(|(listed, _)| now.duration_since(*listed) >= KEEP_LISTING);
                (Err(error), Vec::new())
            }
        };
        let instances = self.last.as_ref().map(|(_, instances)| instances.clone()).unwrap_or_default();
        (instances, SourceReport { name: self.name, result, problems, duration })
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.iter().map(|source| source.name)).finish()
    }
}

/// A name that the kernel accepts for a network device. Anything else must not become a path in sysfs.
pub(crate) fn is_device_name(name: &str) -> bool {
    const IFNAMSIZ: usize = 16;
    let allowed = |byte: u8| byte != b'/' && byte != b':' && byte != 0 && !byte.is_ascii_whitespace();
    !name.is_empty() && name.len() < IFNAMSIZ && name != "." && name != ".." && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
