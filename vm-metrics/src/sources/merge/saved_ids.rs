//! Saves the ids of VMs for the next daemon.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::claims::IdClaim;
use super::fingerprints::LEVELS;
use super::id_records::IdRecords;
use super::twins::IdRecord;
use crate::host::Host;
use crate::own_dir::{DirError, OwnDir};

/// More than all records need.
const LIMIT: u64 = 64 << 20;

/// The file of a daemon of this network namespace.
#[derive(Debug)]
pub struct SavedIds {
    dir: PathBuf,
    name: String,
    boot_id: String,
    is_for_reading: bool,
    /// The last failure, logged once.
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
struct SavedState {
    boot_id: String,
    vms: Vec<SavedVm>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SavedVm {
    #[serde(flatten)]
    claim: IdClaim,
    #[serde(flatten)]
    record: IdRecord,
}

impl SavedIds {
    /// `None` on a host without a boot id or namespace. Touches nothing.
    pub fn new(host: &Host, dir: &Path, is_for_reading: bool) -> Option<Self> {
        let (boot_id, netns) = host.boot_id().zip(host.own_netns())?;
        let name = format!("ids-{netns}.json");
        Some(Self { dir: dir.to_owned(), name, boot_id, is_for_reading, failure: None })
    }

    /// An unreadable file counts as absent.
    pub fn load(&mut self) -> Vec<(IdClaim, IdRecord)> {
        let loaded = self.read();
        let saved = self.note(loaded).flatten();
        let Some(SavedState { boot_id, vms }) = saved else { return Vec::new() };
        let is_this_boot = boot_id == self.boot_id;
        vms.into_iter().map(|vm| vm.restored(is_this_boot)).collect()
    }

    fn read(&self) -> Result<Option<SavedState>, SavedIdsError> {
        let Some(content) = OwnDir::open(&self.dir)?.read(&self.name, LIMIT)? else { return Ok(None) };
        let path = self.dir.join(&self.name);
        Ok(Some(serde_json::from_slice(&content).map_err(|source| SavedIdsError::Content { path, source })?))
    }

    /// All or nothing: a killed daemon leaves the former file.
    pub fn save(&mut self, records: &IdRecords) {
        if self.is_for_reading {
            return;
        }
        let written = self.write(records);
        self.note(written);
    }

    fn write(&self, records: &IdRecords) -> Result<(), SavedIdsError> {
        let saved =
            |(claim, record): (&IdClaim, &IdRecord)| SavedVm { claim: claim.clone(), record: record.clone() };
        let vms = records.iter().map(saved).collect();
        let saved = SavedState { boot_id: self.boot_id.clone(), vms };
        let path = self.dir.join(&self.name);
        let content = serde_json::to_vec(&saved).map_err(|source| SavedIdsError::Content { path, source })?;
        // Opened each time: it may have been made, mended or spoilt since.
        Ok(OwnDir::open(&self.dir)?.replace(&self.name, &content)?)
    }

    /// Without the directory nothing is saved.
    fn note<T>(&mut self, done: Result<T, SavedIdsError>) -> Option<T> {
        let (done, failure) = match done {
            Ok(done) => (Some(done), None),
            Err(SavedIdsError::Dir(DirError::Absent { .. })) => (None, None),
            // The daemon of that user has them.
            Err(SavedIdsError::Dir(error)) if self.is_for_reading && error.owner_for_root().is_some() => {
                (None, None)
            }
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
    fn restored(self, is_this_boot: bool) -> (IdClaim, IdRecord) {
        let Self { claim, record } = self;
        let (process, level) = (record.process.filter(|_| is_this_boot), record.level.min(LEVELS));
        (claim, IdRecord { process, level, ..record })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::sources::merge::claims::Standing;
    use crate::sources::merge::twins::ProcessKey;

    const NAME: &str = "ids-0.json";

    fn saved(dir: &TempDir, boot_id: &str) -> SavedIds {
        let (name, boot_id) = (NAME.to_owned(), boot_id.to_owned());
        SavedIds { dir: dir.path().to_owned(), name, boot_id, is_for_reading: false, failure: None }
    }

    fn one() -> (IdClaim, IdRecord) {
        let id = IdClaim { id: "web".into(), standing: Standing::User(Some(1000)) };
        let process = Some(ProcessKey { pid: 5, start_ticks: Some(7) });
        let fingerprints = [u64::MAX, 1, 2];
        let (given, nics) = ("web-123456".into(), Vec::new());
        (id, IdRecord { given, fingerprints, level: 2, process, uid: Some(1000), ended: Some(9), nics })
    }

    fn records() -> IdRecords {
        let mut records = IdRecords::default();
        records.restore(vec![one()]);
        records
    }

    #[test]
    fn the_next_daemon_has_what_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        saved(&dir, "boot").save(&records());
        assert_eq!(saved(&dir, "boot").load(), [one()]);
        let (id, record) = one();
        let without_process = (id, IdRecord { process: None, ..record });
        assert_eq!(saved(&dir, "next").load(), [without_process], "no process outlives a boot");
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Other versions of the daemon read and write the same.
    #[test]
    fn the_saved_format_stays() {
        let dir = tempfile::tempdir().unwrap();
        saved(&dir, "boot").save(&records());
        let expected = "{\"boot_id\":\"boot\",\"vms\":[{\"id\":\"web\",\"standing\":{\"user\":1000},\"given\":\"web-123456\",\
            \"fingerprints\":[18446744073709551615,1,2],\"level\":2,\"process\":{\"pid\":5,\"start_ticks\":7},\
            \"uid\":1000,\"ended\":9}]}";
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), expected);
    }

    #[test]
    fn who_only_looks_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut looking = SavedIds { is_for_reading: true, ..saved(&dir, "boot") };
        looking.save(&records());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_broken_state_file_is_reported_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "{").unwrap();
        let mut ids = saved(&dir, "boot");
        assert_eq!(ids.load(), []);
        assert!(
            ids.failure.as_ref().is_some_and(|failure| failure.contains("not what a daemon has written"))
        );
        ids.save(&records());
        assert_eq!((ids.failure, saved(&dir, "boot").load().len()), (None, 1));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let mut ids = saved(&dir, "boot");
        ids.save(&records());
        assert!(ids.failure.is_some_and(|failure| failure.contains("has mode 0777")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
