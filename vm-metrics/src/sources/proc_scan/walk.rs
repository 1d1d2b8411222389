//! Walks the descriptors of a process within a time limit.

use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, open, readlink};

use crate::sources::process::{ProcessDir, ReadError, read_error};

/// Descriptors between two looks at the time. Of these, the kernel names the lowest first.
const BATCH: usize = 512;

/// Where in the list of its descriptors the look at a process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirOffset(i64);

/// Calls `take` with the number of each descriptor and where its link leads, from a place on or from the beginning.
///
/// Stops when the time is over, but does some in any case. Returns where the next look goes on, `None` at the end.
pub fn walk(
    process: &ProcessDir,
    from: Option<DirOffset>,
    time: Duration,
    mut take: impl FnMut(u32, &str),
) -> Result<Option<DirOffset>, ReadError> {
    let began = Instant::now();
    let path = process.path("fd");
    let failed = |error: rustix::io::Errno| read_error("list", &path, error.into());
    let directory = open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut entries = Dir::new(directory.map_err(failed)?).map_err(failed)?;
    if let Some(DirOffset(offset)) = from {
        entries.seek(offset).map_err(failed)?;
    }
    let mut next = None;
    loop {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(entry) = entries.read()
        {
            let entry = entry.map_err(failed)?;
            next = Some(DirOffset(entry.offset()));
            batch.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        let is_end = batch.len() < BATCH;
        batch.sort_unstable();
        for descriptor in batch {
            if let Some(target) = target(process, descriptor)? {
                take(descriptor, &target);
            }
        }
        if is_end {
            return Ok(None);
        }
        if began.elapsed() >= time {
            return Ok(next);
        }
    }
}

fn target(process: &ProcessDir, descriptor: u32) -> Result<Option<String>, ReadError> {
    let path = process.path(&format!("fd/{descriptor}"));
    match readlink(&path, Vec::new()) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) => match read_error("read link", path, error.into()) {
            // Closed since the listing.
            ReadError::Gone => Ok(None),
            failed @ ReadError::Failed(_) => Err(failed),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::host::Host;

    /// The descriptors are those of this test process, as the kernel lists them.
    #[test]
    fn a_walk_in_parts_finds_every_descriptor() {
        let files: Vec<File> = (0..3 * BATCH).map_while(|_| File::open("/dev/null").ok()).collect();
        let own: BTreeSet<u32> = files.iter().map(|file| file.as_raw_fd().cast_unsigned()).collect();
        let (host, pid) = (Host::default(), std::process::id());
        let process = ProcessDir::new(&host, pid);
        let (mut found, mut from, mut parts) = (BTreeSet::new(), None, 0);
        loop {
            let mut count = 0;
            from = walk(&process, from, Duration::ZERO, |descriptor, _| {
                found.insert(descriptor);
                count += 1;
            })
            .unwrap();
            assert!(count <= BATCH, "{count} in one part");
            parts += 1;
            if from.is_none() {
                break;
            }
        }
        assert!(own.is_subset(&found), "{} of {} in {parts} parts", found.len(), own.len());
        assert!(parts > own.len() / BATCH, "{parts} parts");
    }

    #[test]
    fn a_walk_with_time_is_done_at_once() {
        let (host, pid) = (Host::default(), std::process::id());
        let mut found = Vec::new();
        let process = ProcessDir::new(&host, pid);
        let rest = walk(&process, None, Duration::from_secs(60), |descriptor, _| found.push(descriptor));
        assert!(rest.unwrap().is_none() && found.is_sorted() && found.contains(&1), "{found:?}");
    }
}
