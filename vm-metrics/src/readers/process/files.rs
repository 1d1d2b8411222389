//! One file in procfs of each hypervisor process, for example `stat`.
//!
//! A [`Patient`] reads the files, because the owner of a process can make a read hang. Files stay open between ticks up to
//! a limit: first those of trusted users, then one of each user in turn. The others are opened for each reading.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::host::Host;
use crate::model::{Batch, InstanceInfo, ProcessStats, Trust, VmSet};
use crate::net::namespaces::Namespaces;
use crate::patient::{Job, Patient};
use crate::procfs::ParseError;
use crate::readers::cached_file::{Buffer, CachedFile};
use crate::readers::{FileBudget, ReadReport, Reader, ReaderContext, ReaderError};

/// How long a tick waits for one process.
const PATIENCE: Duration = Duration::from_millis(100);

/// Kinds of files that stay open per VM, in readers and elsewhere.
const READERS: u64 = 8;

type Parse<T> = fn(&[u8]) -> Result<T, ParseError>;

/// The file, if it is open and still the process's, with the reading.
type Answer<T> = (Option<CachedFile>, Result<Option<T>, ReaderError>);

#[derive(Debug)]
pub(crate) struct ProcessFiles<T> {
    trust: Trust,
    /// Limit of the files that stay open.
    room: usize,
    kept: HashMap<u32, CachedFile>,
    patient: Patient<(u32, Option<CachedFile>), Answer<T>>,
}

impl<T: Send + 'static> ProcessFiles<T> {
    /// `thread` is the name of the thread that reads, `name` that of the file.
    pub(crate) fn new(
        context: &ReaderContext,
        thread: &'static str,
        name: &'static str,
        parse: Parse<T>,
    ) -> Self {
        let room = (FileBudget::of_this_process().processes / READERS).try_into().unwrap_or(usize::MAX);
        Self::with_room(context.host.clone(), context.trust.clone(), room, thread, name, parse)
    }

    pub(crate) fn with_room(
        host: Host,
        trust: Trust,
        room: usize,
        thread: &'static str,
        name: &'static str,
        parse: Parse<T>,
    ) -> Self {
        let read = move |(pid, kept): (u32, Option<CachedFile>)| read(&host, name, pid, kept, parse);
        Self { trust, room, kept: HashMap::new(), patient: Patient::new(thread, PATIENCE, read) }
    }

    /// Reads and parses the file of each VM's process: `None` without such a process. Processes without an answer, and
    /// those beyond a user's share, are omitted and reported.
    pub(crate) fn read_all(
        &mut self,
        vms: &[&InstanceInfo],
        report: &mut ReadReport,
    ) -> Vec<(u32, Result<Option<T>, ReaderError>)> {
        let (with_process, jobs): (Vec<&InstanceInfo>, Vec<_>) =
            vms.iter().filter_map(|vm| Some((*vm, self.job(vm)?))).unzip();
        let answers = self.patient.each(jobs);
        report.overuse.merge(self.patient.take_overuse());
        let keep = self.worth_keeping(&with_process);
        let mut read = Vec::new();
        for (vm, answer) in with_process.iter().zip(answers) {
            let Some(pid) = vm.hypervisor_pid else { continue };
            match answer {
                Some((file, result)) => {
                    self.kept.extend(file.filter(|_| keep.contains(&pid)).map(|file| (pid, file)));
                    read.push((pid, result));
                }
                None if self.trust.is_trusted(vm.uid) => report.error(ReaderError::Hangs { pid }),
                // The report has it as overuse of its user.
                None => {}
            }
        }
        read
    }

    fn job(&mut self, vm: &InstanceInfo) -> Option<Job<(u32, Option<CachedFile>)>> {
        let pid = vm.hypervisor_pid?;
        let is_trusted = self.trust.is_trusted(vm.uid);
        Some(Job { pid, uid: vm.uid, is_trusted, question: (pid, self.kept.remove(&pid)) })
    }

    fn worth_keeping(&self, vms: &[&InstanceInfo]) -> HashSet<u32> {
        let mut of_user: BTreeMap<Option<u32>, usize> = BTreeMap::new();
        let mut turns = Vec::new();
        for vm in vms {
            let turn = of_user.entry(vm.uid).or_default();
            *turn += 1;
            turns.push((if self.trust.is_trusted(vm.uid) { 0 } else { *turn }, vm.hypervisor_pid));
        }
        turns.sort_unstable();
        turns.into_iter().take(self.room).filter_map(|(_, pid)| pid).collect()
    }

    pub(crate) fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.kept.retain(|pid, _| is_wanted(*pid));
    }
}

/// A reader of one file, of those processes whose numbers the batch lacks. `parse` gives `None` for a process that has ended
/// and is not reaped.
impl Reader for ProcessFiles<Option<ProcessStats>> {
    fn read(&mut self, vms: &VmSet, _: &mut Namespaces, batch: &mut Batch) -> ReadReport {
        let mut report = ReadReport::default();
        let incomplete = batch.incomplete(vms);
        report.read_before = batch.complete.len();
        for (pid, result) in self.read_all(&incomplete, &mut report) {
            match result {
                Ok(Some(Some(stats))) => {
                    batch.add_process(pid, stats);
                    report.items += 1;
                }
                Ok(_) => report.error(ReaderError::NoProcess { pid }),
                Err(error) => report.error(error),
            }
        }
        // Closes the files of all other processes.
        let pids: HashSet<Option<u32>> = incomplete.iter().map(|vm| vm.hypervisor_pid).collect();
        self.retain(|pid| pids.contains(&Some(pid)));
        report
    }
}

fn read<T>(host: &Host, name: &str, pid: u32, kept: Option<CachedFile>, parse: Parse<T>) -> Answer<T> {
    let mut buffer = Buffer::new();
    // If its process has ended, another one may have the pid by now.
    if let Some(file) = kept {
        match file.read_parsed(&mut buffer, parse) {
            Ok(Some(parsed)) => return (Some(file), Ok(Some(parsed))),
            Ok(None) => {}
            Err(error) => return (None, Err(error)),
        }
    }
    let file = match CachedFile::open_of(host, pid, name) {
        Ok(Some(file)) => file,
        Ok(None) => return (None, Ok(None)),
        Err(error) => return (None, Err(error)),
    };
    let result = file.read_parsed(&mut buffer, parse);
    (matches!(result, Ok(Some(_))).then_some(file), result)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::procfs::parse_io;

    const IO: &str = "read_bytes: 1\nwrite_bytes: 2\ncancelled_write_bytes: 0\n";

    fn vm(uid: u32, pid: u32) -> InstanceInfo {
        InstanceInfo { uid: Some(uid), hypervisor_pid: Some(pid), ..InstanceInfo::default() }
    }

    #[test]
    fn files_without_room_are_read_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path(), "/none");
        let vms = VmSet { vms: vec![vm(1000, 1), vm(1000, 2), vm(1000, 3), vm(1001, 4), vm(0, 5), vm(0, 6)] };
        for pid in vms.pids() {
            fs::create_dir(host.process(pid)).unwrap();
            fs::write(host.process(pid).join("io"), IO).unwrap();
        }
        let parse = |content: &[u8]| parse_io(content).map(Some);
        let mut files = ProcessFiles::with_room(host, Trust::default(), 4, "test", "io", parse);
        for _ in 0..3 {
            let report = files.read(&vms, &mut Namespaces::default(), &mut Batch::default());
            assert_eq!((report.items, report.errors), (6, 0));
            let mut kept: Vec<u32> = files.kept.keys().copied().collect();
            kept.sort_unstable();
            assert_eq!(kept, [1, 4, 5, 6], "root's, and one of each user");
        }
        let complete = vms.pids().filter(|pid| *pid != 4).collect();
        let mut batch = Batch { complete, ..Batch::default() };
        let report = files.read(&vms, &mut Namespaces::default(), &mut batch);
        assert_eq!((report.items, report.read_before), (1, 5));
        assert!(files.kept.keys().eq([&4]), "the file of the only one that needs it: {:?}", files.kept);
    }
}
