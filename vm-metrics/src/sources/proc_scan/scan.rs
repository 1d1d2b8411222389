//! The state of one scan.

use std::sync::Arc;
use std::time::Duration;

use super::ProcessEntry;
use super::observer::Observer;
use crate::model::Nic;
use crate::sources::SourceError;

/// One scan: the facts that decide how closely it looks at each process, and its results beside the VMs.
#[derive(Debug)]
pub struct Scan {
    pub observer: Arc<Observer>,
    pub now: Duration,
    pub is_first: bool,
    pub full_scan: bool,
    pub devices_changed: bool,
    pub problems: Vec<SourceError>,
    /// VMs whose process has ended, or runs another program.
    pub ended: Vec<ProcessEntry>,
    /// NICs that a VM's process has let go of.
    pub lost: Vec<(u32, Vec<Nic>)>,
}

impl Scan {
    pub fn new(observer: Arc<Observer>, now: Duration, is_first: bool) -> Self {
        let (problems, ended, lost) = (Vec::new(), Vec::new(), Vec::new());
        Self { observer, now, is_first, full_scan: false, devices_changed: false, problems, ended, lost }
    }
}
