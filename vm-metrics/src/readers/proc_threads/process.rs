//! The threads of one process, and the files kept of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;

use super::vcpu_name::vcpu;
use crate::host::Host;
use crate::model::{Hypervisor, ThreadsReading, VcpuReading};
use crate::procfs::parse_schedstat;
use crate::readers::kept::{Buffer, KeptFile};
use crate::readers::{ReadReport, ReaderError};
use crate::sources::executable;

/// A thread gives itself its name as the first thing it does, which on a busy host may be a while after its start.
const LOOKS: u8 = 10;

/// When a thread that has no file is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// A process, as long as it is the same: its directory and its threads' files know no other, whatever pid that has.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// By its source, else by its program.
    hypervisor: Hypervisor,
    path: PathBuf,
    directory: OwnedFd,
    /// What the directory said of the number of threads when they were listed; 0 when they are to be listed anew.
    links: u32,
    threads: BTreeMap<u32, Thread>,
    /// What a thread that is new waited before it was found is of our time.
    complete: bool,
    /// There are threads without a file, which are tried again then.
    try_again: Option<Instant>,
    /// What all threads waited in our time.
    wait_nsec: u64,
}

#[derive(Debug)]
struct Thread {
    file: KeptFile,
    vcpu: Option<u32>,
    looks_left: u8,
    /// What it waited that is in the sum, or was before our time; `None` until it is read.
    seen_nsec: Option<u64>,
}

impl Process {
    /// `None` when there is no such process. A `young` one was started in our time.
    pub(super) fn open(host: &Host, pid: u32, young: bool) -> Result<Option<Self>, ReaderError> {
        let path = host.process(pid).join("task");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(ReaderError::io("open", &path, errno.into())),
        };
        Ok(Some(Self {
            pid,
            hypervisor: Hypervisor::Other,
            path,
            directory,
            links: 0,
            threads: BTreeMap::new(),
            complete: young,
            try_again: None,
            wait_nsec: 0,
        }))
    }

    /// Files that are kept open.
    pub(super) fn files(&self) -> usize {
        1 + self.threads.len()
    }

    /// `None` when the process is gone; what cannot be read of one thread is in the report. `hypervisor` is what its source
    /// says, `room` how many files may still be opened.
    pub(super) fn read(
        &mut self,
        hypervisor: Hypervisor,
        room: &mut usize,
        buffer: &mut Buffer,
        report: &mut ReadReport,
    ) -> Result<Option<ThreadsReading>, ReaderError> {
        let stat = statx(&self.directory, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK);
        let links = stat.map_err(|errno| ReaderError::io("stat", &self.path, errno.into()))?.stx_nlink;
        if links != self.links || self.try_again.is_some_and(|at| at <= Instant::now()) {
            self.links = links;
            if !self.list_threads(room, report)? {
                return Ok(None);
            }
            // A jailer becomes its hypervisor, and only then has vCPUs.
            if hypervisor == Hypervisor::Other {
                self.take_for(by_program(&self.path));
            }
        }
        if hypervisor != Hypervisor::Other {
            self.take_for(hypervisor);
        }
        Ok(Some(self.read_threads(buffer, report)))
    }

    /// Another hypervisor has other names for its threads.
    fn take_for(&mut self, hypervisor: Hypervisor) {
        if self.hypervisor == hypervisor {
            return;
        }
        self.hypervisor = hypervisor;
        for thread in self.threads.values_mut() {
            (thread.vcpu, thread.looks_left) = (None, LOOKS);
        }
    }

    /// Finds new threads; false when the process is gone. Those that have ended are noticed when they are read: as many
    /// threads as before, none of which has ended, are the same as before.
    fn list_threads(&mut self, room: &mut usize, report: &mut ReadReport) -> Result<bool, ReaderError> {
        let found = match tids(&self.directory) {
            Ok(tids) => tids,
            Err(Errno::NOENT | Errno::SRCH) => return Ok(false),
            Err(errno) => return Err(ReaderError::io("list", &self.path, errno.into())),
        };
        let mut left_out = 0;
        for tid in found {
            if self.threads.contains_key(&tid) {
                continue;
            }
            if *room == 0 {
                left_out += 1;
                continue;
            }
            match KeptFile::open_at(&self.directory, &format!("{tid}/schedstat"), &self.path) {
                Ok(Some(file)) => {
                    let seen_nsec = self.complete.then_some(0);
                    *room -= 1;
                    self.threads.insert(tid, Thread { file, vcpu: None, looks_left: LOOKS, seen_nsec });
                }
                // It has ended meanwhile.
                Ok(None) => {}
                Err(error) => {
                    report.error(error);
                    left_out += 1;
                }
            }
        }
        if *room == 0 && left_out > 0 {
            report.error(ReaderError::NoRoom { pid: self.pid, threads: left_out });
        }
        self.complete = left_out == 0;
        self.try_again = (left_out > 0).then(|| Instant::now() + TRY_AGAIN);
        Ok(true)
    }

    fn read_threads(&mut self, buffer: &mut Buffer, report: &mut ReadReport) -> ThreadsReading {
        let Self { directory, path, hypervisor, threads, wait_nsec, .. } = self;
        let mut vcpus: Vec<VcpuReading> = Vec::new();
        let mut has_run = false;
        let mut all_read = self.complete;
        let before = threads.len();
        threads.retain(|tid, thread| {
            // Before its times, which are those of a thread that is still there: so the name is its own.
            if thread.vcpu.is_none() && thread.looks_left > 0 {
                thread.looks_left -= 1;
                thread.vcpu = name(directory, path, *tid, buffer).and_then(|name| vcpu(*hypervisor, &name));
            }
            match thread.file.read_parsed(buffer, parse_schedstat) {
                Ok(Some(times)) => {
                    has_run |= times.is_some();
                    let times = times.unwrap_or_default();
                    *wait_nsec += thread.waited(times.wait_nsec);
                    vcpus.extend(thread.vcpu.map(|vcpu| VcpuReading { vcpu, thread: *tid, times }));
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    report.error(error);
                    all_read = false;
                    true
                }
            }
        });
        if threads.len() < before {
            self.links = 0;
        }
        // No thread of the process has ever run: the kernel does not count.
        if !has_run {
            return ThreadsReading::default();
        }
        vcpus.sort_by_key(|vcpu| (vcpu.vcpu, vcpu.thread));
        vcpus.dedup_by_key(|vcpu| vcpu.vcpu);
        ThreadsReading { vcpus, wait_nsec: all_read.then_some(self.wait_nsec) }
    }
}

impl Thread {
    /// What it waited in our time since the last call.
    fn waited(&mut self, wait_nsec: u64) -> u64 {
        let seen = self.seen_nsec.get_or_insert(wait_nsec);
        let more = wait_nsec.saturating_sub(*seen);
        *seen += more;
        more
    }
}

/// What the process of this directory of threads runs.
fn by_program(threads: &Path) -> Hypervisor {
    let program = fs::read_link(threads.with_file_name("exe")).ok();
    let name = program.as_ref().and_then(|program| program.to_str()).map(executable::file_name);
    name.and_then(executable::hypervisor).unwrap_or_default()
}

fn tids(directory: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut tids = Vec::new();
    for entry in Dir::read_from(directory)? {
        tids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(tids)
}

/// What a thread calls itself; `None` when that cannot be told, which the next look may.
fn name(directory: &OwnedFd, path: &Path, tid: u32, buffer: &mut Buffer) -> Option<Vec<u8>> {
    let file = KeptFile::open_at(directory, &format!("{tid}/comm"), path).ok().flatten()?;
    let name = file.read(buffer).ok().flatten()?;
    name.strip_suffix(b"\n").map(<[u8]>::to_vec)
}
