//! Who exists. A source lists the VMs it knows; it never reads what they use.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::InstanceInfo;

/// Knows which VMs run on this host.
pub trait InstanceSource: Send {
    /// Every VM that runs now. What could not be looked at is a problem in the listing, not an error: the others are still listed.
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

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("process {pid}: {problem}")]
    Process { pid: u32, problem: String },
}

pub struct Sources {
    sources: Vec<(&'static str, Box<dyn InstanceSource>)>,
}
#[derive(Debug)]
pub struct SourceReport {
    pub name: &'static str,
    pub result: Result<usize, SourceError>,
    pub problems: Vec<String>,
    pub duration: std::time::Duration,
}
impl Sources {
    pub fn list(&mut self) -> (crate::model::VmSet, Vec<SourceReport>) {
        Default::default()
    }
}

impl SourceError {
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Process { .. } => None,
        }
    }
}

pub fn configure(
    sections: crate::config::Sections,
    _host: &crate::host::Host,
) -> Result<Sources, crate::config::ConfigError> {
    sections.none_left()?;
    Ok(Sources { sources: vec![] })
}
