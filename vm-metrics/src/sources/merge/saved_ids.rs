//! What a daemon leaves written for the next of the ids that VMs have or had.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id_records::{ClaimedId, IdRecords, Standing};
use super::twins::{ProcessKey, Record};
use crate::host::Host;
use crate::own_dir::{DirError, OwnDir};
use crate::sources::fingerprints::LEVELS;

/// Longer than what all records need that are kept.
const LIMIT: u64 = 64 << 20;

/// The file of a daemon of this network namespace.
#[derive(Debug)]
pub struct SavedIds {
    dir: PathBuf,
    name: String,
    boot_id: String,
    is_for_reading: bool,
    /// The last failure, which is told once.
    failure: Option<String>,
}

#[derive(Debug, Error)]
enum SavedIdsError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("{} is not what a daemon has written: {source}; it is written anew", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
}

#[derive(Debug, Deserialize, Serialize)]
struct Saved {
    boot_id: String,
    vms: Vec<SavedVm>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SavedVm {
    id: String,
    standing: Standing,
    given: String,
    fingerprints: [u64; LEVELS],
    level: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<ProcessKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
}

impl SavedIds {
    /// `None` on a host that does not say which boot or namespace this is. Touches nothing.
    pub fn new(host: &Host, dir: &Path, is_for_reading: bool) -> Option<Self> {
        let (boot_id, netns) = host.boot_id().zip(host.own_netns())?;
        let name = format!("ids-{netns}.json");
        Some(Self { dir: dir.to_owned(), name, boot_id, is_for_reading, failure: None })
    }

    /// What cannot be read is as if it were not there.
    pub fn load(&mut self) -> Vec<(ClaimedId, Record)> {
        let loaded = self.read();
        let saved = self.note(loaded).flatten();
        let Some(Saved { boot_id, vms }) = saved else { return Vec::new() };
        let is_this_boot = boot_id == self.boot_id;
        vms.into_iter().map(|vm| vm.restored(is_this_boot)).collect()
    }

    fn read(&self) -> Result<Option<Saved>, SavedIdsError> {
        let Some(content) = OwnDir::open(&self.dir)?.read(&self.name, LIMIT)? else { return Ok(None) };
        let path = self.dir.join(&self.name);
        Ok(Some(serde_json::from_slice(&content).map_err(|source| SavedIdsError::Content { path, source })?))
    }

    /// All or nothing: whoever is killed meanwhile has left the last one.
    pub fn save(&mut self, records: &IdRecords) {
        if self.is_for_reading {
            return;
        }
        let written = self.write(records);
        self.note(written);
    }

    fn write(&self, records: &IdRecords) -> Result<(), SavedIdsError> {
        let vms = records.iter().map(|(id, record)| SavedVm::of(id, record)).collect();
        let saved = Saved { boot_id: self.boot_id.clone(), vms };
        let path = self.dir.join(&self.name);
        let content = serde_json::to_vec(&saved).map_err(|source| SavedIdsError::Content { path, source })?;
        // Opened each time: it may have been made, mended or spoilt since.
        Ok(OwnDir::open(&self.dir)?.replace(&self.name, &content)?)
    }

    /// Whoever wants no saved state makes no directory.
    fn note<T>(&mut self, done: Result<T, SavedIdsError>) -> Option<T> {
        let (done, failure) = match done {
            Ok(done) => (Some(done), None),
            Err(SavedIdsError::Dir(DirError::Absent { .. })) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(failure) = failure.as_ref().filter(|failure| self.failure.as_ref() != Some(*failure)) {
            tracing::warn!("state_dir: {failure}; after a restart, VMs that claim one id may change theirs");
        }
        self.failure = failure;
        done
    }
}

impl SavedVm {
    fn of(id: &ClaimedId, record: &Record) -> Self {
        let ClaimedId { id, standing } = id.clone();
        let Record { given, fingerprints, level, process, ended, nics: _ } = record.clone();
        Self { id, standing, given, fingerprints, level, process, ended }
    }

    fn restored(self, is_this_boot: bool) -> (ClaimedId, Record) {
        let Self { id, standing, given, fingerprints, level, process, ended } = self;
        let process = process.filter(|_| is_this_boot);
        let level = level.min(LEVELS);
        (ClaimedId { id, standing }, Record { given, fingerprints, level, process, ended, nics: Vec::new() })
    }
}
