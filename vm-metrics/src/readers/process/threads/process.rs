//! The threads of one process, and the files kept of them.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;

use super::thread::{LOOKS, Sums, Thread};
use crate::host::Host;
use crate::model::{Hypervisor, ProcessStats, ThreadsReading, VcpuReading};
use crate::procfs::parse_schedstat;
use crate::readers::cached_file::{Buffer, CachedFile, is_out_of_files};
use crate::readers::{Purpose, ReadReport, ReaderError};

/// When a thread that has no file is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// How often the threads of a process are listed whose user is not trusted, where it has more than a few.
const LIST_AGAIN: Duration = Duration::from_secs(1);
const FEW: usize = 64;

/// The limits of one process in one tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) is_trusted: bool,
    /// Threads that are read, each with a file that stays open.
    pub(super) threads: usize,
    /// Threads that are omitted for lack of files.
    pub(super) no_room: usize,
    /// Files that may be opened.
    pub(super) opens: usize,
}

/// A process, as long as it is the same: its directory and its threads' files know no other, whatever pid that has.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// By its source, else by its program.
    hypervisor: Hypervisor,
    path: PathBuf,
    directory: OwnedFd,
    /// The directory's number of links at the last listing of the threads; 0 to list them again.
    links: u32,
    /// The present number of links.
    links_now: u32,
    listed: Option<Instant>,
    threads: BTreeMap<u32, Thread>,
    /// No thread is omitted, so all waits of a new one belong to the time of this reader.
    complete: bool,
    /// The reason why threads have no file, which each tick reports.
    problem: Option<Arc<ReaderError>>,
    /// There are threads without a file, which are tried again then.
    try_again: Option<Instant>,
    /// Of all threads in our time.
    sums: Sums,
    /// The sums say something: they began with the process, or were read before.
    sums_known: bool,
    /// The first sums are shown as 0, which is where a daemon's counter begins.
    begins_at_zero: bool,
}

impl Process {
    /// `None` when there is no such process. A `young` one was started in our time.
    pub(super) fn open(
        host: &Host,
        pid: u32,
        young: bool,
        purpose: Purpose,
    ) -> Result<Option<Self>, ReaderError> {
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
            links_now: 0,
            listed: None,
            threads: BTreeMap::new(),
            complete: young,
            problem: None,
            try_again: None,
            sums: Sums::default(),
            sums_known: young,
            begins_at_zero: purpose == Purpose::Serve,
        }))
    }

    /// Asks how many threads it has; `None` where the file system does not count.
    pub(super) fn count(&mut self) -> Result<Option<u64>, ReaderError> {
        let stat = statx(&self.directory, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK);
        self.links_now = stat.map_err(|errno| ReaderError::io("stat", &self.path, errno.into()))?.stx_nlink;
        Ok(u64::from(self.links_now).checked_sub(2))
    }

    /// `None` if the process is gone; unreadable threads are in the report. `hypervisor` is that of the source; if the
    /// source does not know it, `by_program` does. To be called after [`count`](Self::count).
    pub(super) fn read(
        &mut self,
        hypervisor: Hypervisor,
        by_program: impl FnOnce() -> Hypervisor,
        allowance: &mut Allowance,
        buffer: &mut Buffer,
        report: &mut ReadReport,
    ) -> Result<Option<(ThreadsReading, ProcessStats)>, ReaderError> {
        self.keep_first(allowance.threads);
        if self.must_list(allowance) {
            self.links = self.links_now;
            self.listed = Some(Instant::now());
            if !self.list_threads(allowance)? {
                return Ok(None);
            }
            // A jailer becomes its hypervisor, and only then has vCPUs.
            if hypervisor == Hypervisor::Other {
                self.take_for(by_program());
            }
        }
        if hypervisor != Hypervisor::Other {
            self.take_for(hypervisor);
        }
        if allowance.no_room > 0 {
            report.error(ReaderError::NoRoom { pid: self.pid, threads: allowance.no_room });
        } else if let Some(problem) = &self.problem {
            report.error(ReaderError::Earlier(Arc::clone(problem)));
        }
        Ok(Some(self.read_threads(allowance, buffer, report)))
    }

    /// Lets go of the threads beyond the allowance: those of the highest ids, for vCPUs are among the first.
    fn keep_first(&mut self, limit: usize) {
        if self.threads.len() > limit {
            self.threads = mem::take(&mut self.threads).into_iter().take(limit).collect();
            self.complete = false;
        }
    }

    fn must_list(&self, allowance: &Allowance) -> bool {
        let may_have_more = !self.complete && self.threads.len() < allowance.threads;
        let is_due = self.try_again.map_or(may_have_more, |at| at <= Instant::now());
        if self.links_now == self.links && !is_due {
            return false;
        }
        let is_paced = !allowance.is_trusted && self.threads.len() > FEW;
        !(is_paced && self.listed.is_some_and(|listed| listed.elapsed() < LIST_AGAIN))
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

    /// Finds new threads; false if the process is gone. The reading notices terminated threads: an equal number without a
    /// terminated one means the same threads.
    fn list_threads(&mut self, allowance: &mut Allowance) -> Result<bool, ReaderError> {
        (self.problem, self.try_again) = (None, None);
        let complete = mem::replace(&mut self.complete, true);
        let failed = |errno: Errno| match errno {
            Errno::NOENT | Errno::SRCH => Ok(false),
            _ => Err(ReaderError::io("list", &self.path, errno.into())),
        };
        let entries = match Dir::read_from(&self.directory) {
            Ok(entries) => entries,
            Err(errno) => return failed(errno),
        };
        let mut without_file = 0;
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return failed(errno),
            };
            let tid = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
            let Some(tid) = tid.filter(|tid| !self.threads.contains_key(tid)) else { continue };
            if self.threads.len() >= allowance.threads {
                // The rest need not be looked at, however many there are.
                self.complete = false;
                break;
            }
            if allowance.opens == 0 {
                // The next tick goes on.
                (self.complete, self.listed) = (false, None);
                break;
            }
            allowance.opens -= 1;
            match CachedFile::open_at(&self.directory, &format!("{tid}/schedstat"), &self.path) {
                Ok(Some(file)) => {
                    let seen = complete.then(Sums::default);
                    self.threads.insert(tid, Thread::new(file, seen));
                }
                // It has ended meanwhile.
                Ok(None) => {}
                Err(error) => {
                    without_file += 1;
                    let no_more_files = is_out_of_files(&error);
                    self.problem.get_or_insert_with(|| Arc::new(error));
                    if no_more_files {
                        break;
                    }
                }
            }
        }
        if without_file > 0 {
            self.complete = false;
            self.try_again = Some(Instant::now() + TRY_AGAIN);
        }
        Ok(true)
    }

    fn read_threads(
        &mut self,
        allowance: &mut Allowance,
        buffer: &mut Buffer,
        report: &mut ReadReport,
    ) -> (ThreadsReading, ProcessStats) {
        let Self { directory, path, hypervisor, threads, sums, .. } = self;
        let mut vcpus: Vec<VcpuReading> = Vec::new();
        let mut has_run = false;
        let mut all_read = self.complete;
        let mut all_named = true;
        let before = threads.len();
        threads.retain(|tid, thread| {
            // Before its times, which are those of a thread that is still there: so the name is its own.
            if thread.vcpu.is_none() && thread.looks_left > 0 && allowance.opens > 0 {
                allowance.opens -= 1;
                thread.looks_left -= 1;
                thread.find_vcpu(directory, path, *tid, *hypervisor, buffer);
            }
            all_named &= thread.vcpu.is_some() || thread.looks_left < LOOKS;
            match thread.file.read_parsed(buffer, parse_schedstat) {
                Ok(Some(times)) => {
                    has_run |= times.is_some();
                    let times = times.unwrap_or_default();
                    thread.add_to(sums, times);
                    vcpus.extend(thread.vcpu.map(|vcpu| VcpuReading {
                        vcpu,
                        thread: *tid,
                        start_ticks: thread.start_ticks,
                        times,
                    }));
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
            return Default::default();
        }
        vcpus.sort_by_key(|vcpu| (vcpu.vcpu, vcpu.thread));
        vcpus.dedup_by_key(|vcpu| vcpu.vcpu);
        let vcpu_count = u32::try_from(vcpus.len()).ok().filter(|count| all_read && all_named && *count > 0);
        let is_known = mem::replace(&mut self.sums_known, true) || self.begins_at_zero;
        let sums = (all_read && is_known).then_some(self.sums);
        let stats = ProcessStats {
            cpu_wait_usec: sums.map(|sums| sums.wait_nsec / 1000),
            context_switches: sums.map(|sums| sums.switches),
            ..ProcessStats::default()
        };
        (ThreadsReading { vcpus, vcpu_count }, stats)
    }
}
