//! What a daemon leaves written for the next: which VM had which device, what of its counts was others', and what each VM
//! has counted by devices that are gone. Nothing in the kernel knows that.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::DeviceAccount;
use super::DeviceKey;
use super::interface_counter::EarlierTotals;
use super::moves::Moves;
use super::processes::Process;
use super::sums::VmSum;
use super::totals::Totals;
use crate::host::Host;
use crate::model::{ComponentHealth, FIRST_NUMBER, Health, Nic, NicSince};
use crate::own_dir::{DirError, OwnDir};

/// Longer than what 100 000 devices need.
const LIMIT: u64 = 256 << 20;

/// Where it is written, and how that goes. What a boot before this one has left means nothing.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// `None` on a host that does not say which boot it is in.
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
    /// What the former owners were given.
    #[serde(default, rename = "origin", skip_serializing_if = "Option::is_none")]
    offset: Option<Totals>,
    /// Since when the owner's counters count, and those of the programs.
    #[serde(default)]
    counts_since: Option<f64>,
    #[serde(default)]
    ebpf_since: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier: Option<EarlierTotals>,
}

impl Store {
    /// Touches nothing.
    pub(super) fn new(host: &Host, dir: &Path) -> Self {
        let file = host.boot_id().zip(host.own_netns());
        let file = file.map(|(boot_id, netns)| StateFile { name: format!("ledger-{netns}.json"), boot_id });
        Self { dir: dir.to_owned(), file, health: ComponentHealth::healthy() }
    }

    /// Whether the last thing that was done here worked.
    pub(super) fn health(&self) -> &ComponentHealth {
        &self.health
    }

    /// Whether a daemon of this user could use the directory; writes nothing.
    fn check(&mut self) {
        let checked = self.try_check();
        self.note(checked);
    }

    /// The same for who runs no daemon: the directory may be that of the user who does.
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

    /// What the daemon before this one has left. What cannot be read is as if it were not there.
    pub(super) fn load(&mut self, now: f64) -> (Vec<(DeviceKey, DeviceAccount)>, Vec<VmSum>, Moves) {
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
        let accounts = saved.devices.into_iter().map(|device| device.restored(now)).collect();
        (accounts, saved.ended, saved.moves)
    }

    /// `None` where this boot has left nothing.
    fn read(&self) -> Result<Option<StateContent>, StoreError> {
        let file = self.file()?;
        let Some(content) = OwnDir::open(&self.dir)?.read(&file.name, LIMIT)? else { return Ok(None) };
        let saved: StateContent = serde_json::from_slice(&content)
            .map_err(|source| StoreError::Content { path: self.dir.join(&file.name), source })?;
        Ok((saved.boot_id == file.boot_id).then_some(saved))
    }

    /// All or nothing: whoever is killed meanwhile has left the last one.
    pub(super) fn save<'a>(
        &mut self,
        accounts: impl Iterator<Item = (&'a DeviceKey, &'a DeviceAccount)>,
        ended: Vec<VmSum>,
        moves: Moves,
    ) {
        let devices = accounts.map(|(key, account)| SavedDevice::of(key, account)).collect();
        let written = self.write(devices, ended, moves);
        self.note(written);
    }

    fn write(&self, devices: Vec<SavedDevice>, ended: Vec<VmSum>, moves: Moves) -> Result<(), StoreError> {
        let StateFile { name, boot_id } = self.file()?;
        // Opened each time: it may have been made, mended or spoilt since.
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
            // Whoever wants none of this makes no directory.
            Self::NoBoot | Self::Dir(DirError::Absent { .. }) => (Health::Disabled, None),
            Self::Dir(error) => (Health::Failed, error.errno()),
            // The next one is written over it.
            Self::Content { .. } => (Health::Degraded, None),
        };
        ComponentHealth::new(state, format!("state_dir: {self}; {COST}")).with_errno(errno)
    }
}

impl SavedDevice {
    fn of(key: &DeviceKey, account: &DeviceAccount) -> Self {
        let offset = (account.offset != Totals::default()).then_some(account.offset);
        let (tap, owner) = (account.nic.tap.clone(), account.owner.clone());
        let DeviceKey { netns, ifindex, .. } = *key;
        // The next daemon counts the namespaces that it has no cookie of anew.
        let device = account.device.filter(|device| *device < FIRST_NUMBER);
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

    fn restored(self, now: f64) -> (DeviceKey, DeviceAccount) {
        let nic = Nic { tap: self.tap, netns: self.netns };
        let key = DeviceKey::new(&nic, self.ifindex);
        let mut account = DeviceAccount::new(nic, self.device, &self.owner, self.since);
        account.process = self.process;
        account.counts_since = NicSince { device: self.counts_since, ebpf: self.ebpf_since };
        account.earlier = self.earlier;
        (key, account.restored(self.offset.unwrap_or_default(), now))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    const NAME: &str = "ledger-0.json";

    /// A directory, and the store of a daemon that starts there.
    fn store() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(StateFile { name: NAME.to_owned(), boot_id: "one".to_owned() });
        let store = Store { dir: dir.path().to_owned(), file, health: ComponentHealth::healthy() };
        (dir, store)
    }

    fn save(store: &mut Store) {
        store.save([].into_iter(), Vec::new(), Moves::default());
    }

    fn says(store: &Store) -> (Health, &str) {
        (store.health().state, &store.health().reason)
    }

    /// A daemon of another version may have written it, or may be the next to read it.
    #[test]
    fn the_saved_state_keeps_its_format() {
        const STATE: &str = r#"{"boot_id":"one","devices":[{"tap":"t","netns":5,"ifindex":7,"device":11,
            "owner":"a","process":[70,500],"since":1.5,"origin":ORIGIN,"counts_since":2.5,"ebpf_since":3.5,
            "earlier":{"counts":{"rx":RX,"tx":RX,"ebpf":EBPF,"rx_dropped_by_device":6,"rx_gap_packets":7,
            "tx_gap_packets":8},"since":4.5,"ebpf_since":5.5}}],
            "ended":[{"id":"a","pid":70,"start_ticks":500,"sum":[1,2,3,null]}],
            "moves":[{"at":6.5,"tap":"t","from":null,"device":12,"ifindex":9,"raw":[RX,RX],"line":ORIGIN}]}"#;
        const MIX: &str = r#"{"bytes":1,"packets":2,"wire_packets":3,"wire_bytes":4,"gso_packets":5,"ipv4":6,
            "ipv6":7,"arp":8,"other_l3":9,"tcp":10,"udp":11,"icmp":12,"other_l4":13,"unicast":14,
            "multicast":15,"broadcast":16}"#;
        const EBPF: &str = r#"{"rx":MIX,"tx":MIX,"offered":{"packets":1,"bytes":2},"dropped_ring_full":null,
            "dropped_filter":{"packets":3,"bytes":4},"dropped_qdisc":{"packets":5,"bytes":6}}"#;
        let text = STATE
            .replace("ORIGIN", r#"{"rx":RX,"tx":RX,"ebpf":EBPF}"#)
            .replace("EBPF", EBPF)
            .replace("MIX", MIX)
            .replace("RX", r#"{"bytes":1,"packets":2,"dropped":3,"errors":null}"#);
        let saved: StateContent = serde_json::from_str(&text).unwrap();
        let same: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&saved).unwrap(), same);
        let (key, account) = saved.devices.into_iter().next().unwrap().restored(0.0);
        assert_eq!(serde_json::to_value(SavedDevice::of(&key, &account)).unwrap(), same["devices"][0]);
    }

    #[test]
    fn the_state_is_private() {
        let (dir, mut store) = store();
        store.load(0.0);
        save(&mut store);
        assert_eq!(says(&store), (Health::Healthy, ""));
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_fifo_is_refused_until_it_is_removed() {
        let (dir, mut store) = store();
        let path = dir.path().join(NAME);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        store.load(0.0);
        let expected = format!("state_dir: {} is a FIFO, and no regular file: remove it; ", path.display());
        assert!(store.health().reason.starts_with(&expected), "{:?}", store.health());
        save(&mut store);
        assert_eq!(says(&store).0, Health::Failed);
        fs::remove_file(&path).unwrap();
        save(&mut store);
        assert_eq!(says(&store).0, Health::Healthy);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let (dir, mut store) = store();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        for step in [Store::look, |store: &mut Store| drop(store.load(0.0)), save] {
            step(&mut store);
            assert_eq!(says(&store).0, Health::Failed);
            assert!(says(&store).1.contains("has mode 0777"), "{:?}", store.health());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_spoilt_state_is_written_over() {
        let (dir, mut store) = store();
        fs::write(dir.path().join(NAME), "{").unwrap();
        store.load(0.0);
        assert_eq!(says(&store).0, Health::Degraded);
        save(&mut store);
        assert_eq!(says(&store).0, Health::Healthy);
    }
}
