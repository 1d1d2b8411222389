//! What a daemon leaves written for the next: which VM had which device, what of its counts was others', and what each VM
//! has counted by devices that are gone. Nothing in the kernel knows that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Account;
use super::DeviceKey;
use super::sums::Ended;
use super::totals::Totals;
use crate::host::Host;
use crate::model::{FIRST_NUMBER, Nic};

/// Longer than what 100 000 devices need.
const LIMIT: u64 = 256 << 20;

/// Where it is written. What a boot before this one has left means nothing.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    boot_id: String,
    /// The last failure, which is said once.
    problem: Option<String>,
}

#[derive(Debug, Error)]
enum StoreError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not what a daemon has written: {source}", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
    #[error("{} is longer than {LIMIT} bytes", path.display())]
    TooLong { path: PathBuf },
}

#[derive(Debug, Deserialize, Serialize)]
struct Saved {
    boot_id: String,
    devices: Vec<Device>,
    #[serde(default)]
    ended: Vec<Ended>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Device {
    tap: String,
    netns: Option<u64>,
    ifindex: u32,
    device: Option<u64>,
    owner: String,
    since: Option<f64>,
    /// What the former owners were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Totals>,
}

impl Store {
    /// `None` where nothing can be kept: on a host that does not say which boot it is in, or without the directory.
    pub(super) fn open(host: &Host, dir: &Path) -> Option<Self> {
        let (boot_id, netns) = (host.boot_id()?, host.own_netns()?);
        let path = dir.join(format!("ledger-{netns}.json"));
        dir.is_dir().then_some(Self { path, boot_id, problem: None })
    }

    /// What the daemon before this one has left. What cannot be read is as if it were not there.
    pub(super) fn load(&mut self, now: f64) -> (Vec<(DeviceKey, Account)>, Vec<Ended>) {
        match self.read() {
            Ok(saved) if saved.boot_id == self.boot_id => {
                (saved.devices.into_iter().map(|device| device.restored(now)).collect(), saved.ended)
            }
            Ok(_) => Default::default(),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Default::default()
            }
            Err(error) => {
                self.complain(&error);
                Default::default()
            }
        }
    }

    fn read(&self) -> Result<Saved, StoreError> {
        let failed = |source| StoreError::Io { operation: "read", path: self.path.clone(), source };
        if fs::metadata(&self.path).map_err(failed)?.len() > LIMIT {
            return Err(StoreError::TooLong { path: self.path.clone() });
        }
        let content = fs::read(&self.path).map_err(failed)?;
        serde_json::from_slice(&content)
            .map_err(|source| StoreError::Content { path: self.path.clone(), source })
    }

    /// All or nothing: whoever is killed meanwhile has left the last one.
    pub(super) fn save<'a>(
        &mut self,
        accounts: impl Iterator<Item = (&'a DeviceKey, &'a Account)>,
        ended: Vec<Ended>,
    ) {
        let devices = accounts.map(|(key, account)| Device::of(key, account)).collect();
        let saved = Saved { boot_id: self.boot_id.clone(), devices, ended };
        match self.write(&saved) {
            Ok(()) => self.problem = None,
            Err(error) => self.complain(&error),
        }
    }

    fn write(&self, saved: &Saved) -> Result<(), StoreError> {
        let failed = |operation, source| StoreError::Io { operation, path: self.path.clone(), source };
        let content = serde_json::to_vec(saved)
            .map_err(|source| StoreError::Content { path: self.path.clone(), source })?;
        let new = self.path.with_extension("new");
        fs::write(&new, content).map_err(|error| failed("write", error))?;
        fs::rename(&new, &self.path).map_err(|error| failed("replace", error))
    }

    fn complain(&mut self, error: &StoreError) {
        let problem = error.to_string();
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(
                "{problem}: after a restart, a TAP that passed from VM to VM counts for the last one"
            );
            self.problem = Some(problem);
        }
    }
}

impl Device {
    fn of(key: &DeviceKey, account: &Account) -> Self {
        let origin = (account.origin != Totals::default()).then_some(account.origin);
        let (tap, owner) = (account.nic.tap.clone(), account.owner.clone());
        let DeviceKey { netns, ifindex, .. } = *key;
        // The next daemon counts the namespaces that it has no cookie of anew.
        let device = account.device.filter(|device| *device < FIRST_NUMBER);
        Self { tap, netns, ifindex, device, owner, since: account.since, origin }
    }

    fn restored(self, now: f64) -> (DeviceKey, Account) {
        let nic = Nic { tap: self.tap, netns: self.netns };
        let key = DeviceKey::new(&nic, self.ifindex);
        let account = Account::new(nic, self.device, &self.owner, self.since);
        (key, account.restored(self.origin.unwrap_or_default(), now))
    }
}
