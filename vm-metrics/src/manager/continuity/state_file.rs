//! Saves the accounts of devices and the sums of VMs for the next daemon. The kernel keeps neither the former owners of
//! a device, nor the counts of deleted devices.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::DeviceAccount;
use super::interface_counter::EarlierTotals;
use super::moves::Moves;
use super::processes::Process;
use super::sums::VmSum;
use super::totals::Totals;
use crate::host::Host;
use crate::model::{ComponentHealth, DeviceId, FIRST_NUMBER, Health, Nic, NicSince};
use crate::net::device_table::DeviceTable;
use crate::own_dir::{DirError, OwnDir};

/// More than 100 000 devices need.
const LIMIT: u64 = 256 << 20;

/// The state file and the health of its use. A file of another boot is ignored.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// `None` on a host without a boot id.
    file: Option<StateFile>,
    health: ComponentHealth,
}

#[derive(Debug)]
struct StateFile {
    name: String,
    boot_id: String,
}

#[derive(Debug, Error)]
enum StoreError {
    #[error("this host does not say which boot it is in")]
    NoBoot,
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("{} is not what a daemon has written: {source}", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
}

#[derive(Debug, Deserialize, Serialize)]
struct StateContent {
    boot_id: String,
    devices: Vec<SavedDevice>,
    #[serde(default)]
    ended: Vec<VmSum>,
    #[serde(default)]
    moves: Moves,
}

#[derive(Debug, Deserialize, Serialize)]
struct SavedDevice {
    tap: String,
    netns: Option<u64>,
    ifindex: u32,
    device: Option<u64>,
    owner: String,
    #[serde(default)]
    process: Option<Process>,
    since: Option<f64>,
    /// The counts of former owners.
    #[serde(default, rename = "origin", skip_serializing_if = "Option::is_none")]
    offset: Option<Totals>,
    /// The times from which the owner's counters count, and those of the programs.
    #[serde(default)]
    counts_since: Option<f64>,
    #[serde(default)]
    ebpf_since: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier: Option<EarlierTotals>,
}

impl Store {
    /// Reads nothing yet.
    pub(super) fn new(host: &Host, dir: &Path) -> Self {
        let file = host.boot_id().zip(host.own_netns());
        let file = file.map(|(boot_id, netns)| StateFile { name: format!("ledger-{netns}.json"), boot_id });
        Self { dir: dir.to_owned(), file, health: ComponentHealth::healthy() }
    }

    /// Whether the last use of the file worked.
    pub(super) fn health(&self) -> &ComponentHealth {
        &self.health
    }

    /// Whether a daemon of this user could use the directory; writes nothing.
    fn check(&mut self) {
        let checked = self.try_check();
        self.note(checked);
    }

    /// The same for a one-shot run: the directory may belong to the user of the daemon.
    pub(super) fn look(&mut self) {
        let checked = self.try_check();
        if let Err(StoreError::Dir(error)) = &checked
            && let Some(owner) = error.owner_for_root()
        {
            let dir = self.dir.display();
            let reason = format!(
                "state_dir: {dir} belongs to user {owner}: a daemon of that user keeps its state there"
            );
            self.health = ComponentHealth::new(Health::Healthy, reason);
            return;
        }
        self.note(checked);
    }

    fn try_check(&self) -> Result<(), StoreError> {
        let file = self.file()?;
        let dir = OwnDir::open(&self.dir)?;
        dir.check_writable()?;
        Ok(dir.has_file(&file.name).map(drop)?)
    }

    /// Loads the state of the daemon before this one. An unreadable file counts as none.
    pub(super) fn load(
        &mut self,
        now: f64,
        devices: &mut DeviceTable,
    ) -> (Vec<(DeviceId, DeviceAccount)>, Vec<VmSum>, Moves) {
        self.check();
        let loaded = self.read();
        let saved = match loaded {
            Ok(saved) => saved,
            Err(error) => {
                self.note(Err(error));
                None
            }
        };
        let Some(saved) = saved else { return Default::default() };
        let accounts = saved.devices.into_iter().map(|device| device.restored(now, devices)).collect();
        (accounts, saved.ended, saved.moves)
    }

    /// `None` without a file of this boot.
    fn read(&self) -> Result<Option<StateContent>, StoreError> {
        let file = self.file()?;
        let Some(content) = OwnDir::open(&self.dir)?.read(&file.name, LIMIT)? else { return Ok(None) };
        let saved: StateContent = serde_json::from_slice(&content)
            .map_err(|source| StoreError::Content { path: self.dir.join(&file.name), source })?;
        Ok((saved.boot_id == file.boot_id).then_some(saved))
    }

    /// Replaces the file as a whole: a daemon that is killed meanwhile leaves the former one.
    pub(super) fn save<'a>(
        &mut self,
        accounts: impl Iterator<Item = &'a DeviceAccount>,
        ended: Vec<VmSum>,
        moves: Moves,
    ) {
        let devices = accounts.map(SavedDevice::of).collect();
        let written = self.write(devices, ended, moves);
        self.note(written);
    }

    fn write(&self, devices: Vec<SavedDevice>, ended: Vec<VmSum>, moves: Moves) -> Result<(), StoreError> {
        let StateFile { name, boot_id } = self.file()?;
        // Opened each time, for it may have been made, mended or spoilt since.
        let dir = OwnDir::open(&self.dir)?;
        let saved = StateContent { boot_id: boot_id.clone(), devices, ended, moves };
        let content = serde_json::to_vec(&saved)
            .map_err(|source| StoreError::Content { path: self.dir.join(name), source })?;
        Ok(dir.replace(name, &content)?)
    }

    fn file(&self) -> Result<&StateFile, StoreError> {
        self.file.as_ref().ok_or(StoreError::NoBoot)
    }

    fn note(&mut self, done: Result<(), StoreError>) {
        self.health = match done {
            Ok(()) => ComponentHealth::healthy(),
            Err(error) => error.health(),
        };
    }
}

impl StoreError {
    fn health(&self) -> ComponentHealth {
        const COST: &str = "after a restart, a TAP that passed from VM to VM counts for the last one";
        let (state, errno) = match self {
            // Without the directory, the operator wants no state.
            Self::NoBoot | Self::Dir(DirError::Absent { .. }) => (Health::Disabled, None),
            Self::Dir(error) => (Health::Failed, error.errno()),
            // The next save replaces it.
            Self::Content { .. } => (Health::Degraded, None),
        };
        ComponentHealth::new(state, format!("state_dir: {self}; {COST}")).with_errno(errno)
    }
}

impl SavedDevice {
    fn of(account: &DeviceAccount) -> Self {
        let offset = (account.offset != Totals::default()).then_some(account.offset);
        let (Nic { tap, netns }, owner) = (account.nic.clone(), account.owner.clone());
        // The next daemon gives new numbers to namespaces without a cookie.
        let device = account.device.birth.filter(|birth| *birth < FIRST_NUMBER);
        let ifindex = account.device.id.ifindex;
        let DeviceAccount { process, since, counts_since, earlier, .. } = *account;
        Self {
            tap,
            netns,
            ifindex,
            device,
            owner,
            process,
            since,
            offset,
            counts_since: counts_since.device,
            ebpf_since: counts_since.ebpf,
            earlier,
        }
    }

    fn restored(self, now: f64, devices: &mut DeviceTable) -> (DeviceId, DeviceAccount) {
        let nic = Nic { tap: self.tap, netns: self.netns };
        let device = devices.restore(&nic, self.ifindex, self.device);
        let mut account = DeviceAccount::new(nic, device, &self.owner, self.since);
        account.process = self.process;
        account.counts_since = NicSince { device: self.counts_since, ebpf: self.ebpf_since };
        account.earlier = self.earlier;
        (device.id, account.restored(self.offset.unwrap_or_default(), now))
    }
}

#[cfg(test)]
mod tests;
