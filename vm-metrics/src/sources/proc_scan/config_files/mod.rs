//! Reads the config files that command lines name, with the rights of their processes.
//!
//! The tick waits a moment for those that are new, and for no other. A VM is listed without them, too.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::cmdline::{ConfigFile, VmArgs};
use crate::host::Host;
use crate::model::Excess;
use crate::sources::SourceError;
use crate::sources::files::process_path::{ProcessPath, STRANGERS_PATIENCE, Workers};
use crate::sources::vmm_api::Schedule;

/// A config of Firecracker or QEMU is a few kilobytes.
const LIMIT: u64 = 1 << 20;

/// How long a call waits for the files of new VMs of trusted users. Only a host that is too busy to read needs so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pid and start time.
type Key = (u32, u64);

#[derive(Debug)]
pub struct ConfigFiles {
    host: Host,
    workers: Workers,
    known: HashMap<Key, FileEntry>,
    answers: Receiver<ParsedFile>,
    answer: Sender<ParsedFile>,
}

#[derive(Debug)]
struct ParsedFile {
    key: Key,
    /// `None` after a failure, whose reason only the debug log has.
    args: Option<VmArgs>,
}

/// A file that a process names.
#[derive(Debug)]
struct FileEntry {
    file: Arc<ConfigFile>,
    /// The user of the process.
    uid: Option<u32>,
    schedule: Schedule,
    under_way: bool,
    args: Option<VmArgs>,
}

impl ConfigFiles {
    pub fn new(host: Host, workers: Workers) -> Self {
        let (answer, answers) = mpsc::channel();
        Self { host, workers, known: HashMap::new(), answers, answer }
    }

    /// Reads these files and no others, each once; those that cannot be read are tried again. Returns who had to wait.
    ///
    /// Each has the pid and start time of its process, and the user who runs that. `now` is the time since any fixed
    /// moment.
    pub fn update<'f>(
        &mut self,
        now: Duration,
        files: impl Iterator<Item = (Key, Option<u32>, &'f Arc<ConfigFile>)>,
    ) -> Excess {
        let mut before = std::mem::take(&mut self.known);
        for (key, uid, file) in files {
            let known = before.remove(&key).unwrap_or_else(|| FileEntry::new(file, uid));
            self.known.insert(key, known);
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.take(now, answer);
        }
        let mut due = self.due(now);
        let mut started = HashMap::new();
        let began = Instant::now();
        loop {
            self.start(&mut due, &mut started);
            let patience = patience(&started).saturating_sub(began.elapsed());
            let Ok(answer) = self.answers.recv_timeout(patience) else { break };
            started.remove(&answer.key);
            self.take(now, answer);
        }
        let mut overuse = Excess::default();
        for (uid, left) in due.into_iter().filter(|(uid, _)| !self.workers.trusts(*uid)) {
            overuse.add(uid, "paths", left.len() as u64);
        }
        overuse
    }

    /// The VM by its file. `None` while that is not known, an error where it cannot be read.
    pub fn get(&self, key: Key) -> Option<Result<&VmArgs, SourceError>> {
        let known = self.known.get(&key)?;
        let is_asked = known.under_way || !known.schedule.is_new();
        match &known.args {
            Some(args) => Some(Ok(args)),
            // One that hangs looks like any other that cannot be used.
            None => {
                is_asked.then(|| Err(SourceError::process(key.0, "its configuration file cannot be used")))
            }
        }
    }

    fn due(&self, now: Duration) -> DueFiles {
        let mut due = DueFiles::new();
        for (key, known) in self.known.iter().filter(|(_, known)| known.is_due(now)) {
            due.entry(known.uid).or_default().push(*key);
        }
        due
    }

    /// One of each user in turn, as long as threads may run.
    fn start(&mut self, due: &mut DueFiles, started: &mut HashMap<Key, bool>) {
        loop {
            let mut any = false;
            for (uid, keys) in &mut *due {
                let Some(permit) = self.workers.try_permit(*uid) else { continue };
                let Some(key) = keys.pop() else { continue };
                let Some(known) = self.known.get_mut(&key) else { continue };
                any = true;
                let (host, (pid, start_ticks)) = (self.host.clone(), key);
                let path = PathBuf::from(&known.file.path);
                let then = reading(key, Arc::clone(&known.file), self.answer.clone());
                let file = ProcessPath { host, pid, start_ticks, path };
                known.under_way = permit.read(file, LIMIT, then).is_ok();
                if known.under_way {
                    started.insert(key, self.workers.trusts(*uid));
                }
            }
            if !any {
                return due.retain(|_, keys| !keys.is_empty());
            }
        }
    }

    fn take(&mut self, now: Duration, answer: ParsedFile) {
        // The process may have ended meanwhile.
        let Some(known) = self.known.get_mut(&answer.key) else { return };
        known.under_way = false;
        match answer.args {
            Some(args) => known.args = Some(args),
            None => known.schedule.failed(now),
        }
    }
}

/// Files to be read, by user.
type DueFiles = BTreeMap<Option<u32>, Vec<Key>>;

/// How long files are waited for that this call has begun to read; each with whether its user is trusted.
fn patience(started: &HashMap<Key, bool>) -> Duration {
    match () {
        () if started.values().any(|is_trusted| *is_trusted) => PATIENCE,
        () if !started.is_empty() => STRANGERS_PATIENCE,
        () => Duration::ZERO,
    }
}

/// Parses the content on the thread that has read it.
fn reading(
    key: Key,
    file: Arc<ConfigFile>,
    answer: Sender<ParsedFile>,
) -> impl FnOnce(io::Result<Vec<u8>>) + Send + 'static {
    move |content| {
        let args = content
            .map_err(|error| error.to_string())
            .and_then(|content| file.read(&content).map_err(|error| error.to_string()));
        if let Err(error) = &args {
            tracing::debug!(pid = key.0, path = ?file.path, "cannot use a configuration file: {error}");
        }
        // Nobody waits any more where the source is gone.
        let _ = answer.send(ParsedFile { key, args: args.ok() });
    }
}

impl FileEntry {
    fn new(file: &Arc<ConfigFile>, uid: Option<u32>) -> Self {
        Self { file: Arc::clone(file), uid, schedule: Schedule::default(), under_way: false, args: None }
    }

    fn is_due(&self, now: Duration) -> bool {
        !self.under_way && self.args.is_none() && self.schedule.is_due(now)
    }
}

#[cfg(test)]
mod tests;
