//! Who exists. A source lists the VMs it knows; it never reads what they use.

pub mod proc_scan;

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
