//! Reads at most so many bytes of plain files, without waiting for writers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::host::Host;

/// A fifo under the file's name must not hold up the tick.
const READ: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// The whole of a file that was found with `O_PATH`; an error if it is larger than `limit` bytes or no plain file.
///
/// A file of length 0 is not opened: files of procfs and tracefs have this length, and a read empties some of them
/// (`/proc/kmsg`).
pub fn read_located(located: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let located = File::from(located);
    if plain_len(&located)? == 0 {
        return Ok(Vec::new());
    }
    // The only way to open exactly the checked file. The descriptor is our own, so procfs is, too.
    read_kernel(&path_of(&located), limit)
}

/// A path to an own descriptor: the file itself, whatever happens to its own path, and however long that is.
pub fn path_of(file: &impl AsRawFd) -> PathBuf {
    Host::default().proc().join(format!("self/fd/{}", file.as_raw_fd()))
}

/// The same for a path that only the kernel gives a meaning, in half the system calls.
pub fn read_kernel(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let content = read_start(path, limit + 1)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(content)
}

/// The first `limit` bytes of a file that the kernel makes.
pub fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(READ.bits().cast_signed()).open(path)?;
    plain_len(&file)?;
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

fn plain_len(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::MaybeUninit;

    use rustix::fs::{Mode, inotify, open};
    use rustix::io::Errno;

    use super::*;

    fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        read_located(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?, limit)
    }

    #[test]
    fn a_limit_is_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "larger than 4 bytes");
        assert_eq!(read(dir.path(), 4).unwrap_err().to_string(), "not a plain file");
    }

    #[test]
    fn a_long_kernel_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmdline");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_start(&path, 4).unwrap(), b"1234");
    }

    #[test]
    fn a_fifo_is_not_even_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Opening it for a moment would let a writer go on that waits for a reader.
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &path, inotify::WatchFlags::OPEN).unwrap();
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "not a plain file");
        let event = inotify::Reader::new(&watch, &mut [MaybeUninit::uninit(); 64]).next().map(drop);
        assert_eq!(event, Err(Errno::AGAIN), "it was opened");
    }

    #[test]
    fn a_device_is_no_plain_file() {
        assert_eq!(read(Path::new("/dev/null"), 4).unwrap_err().to_string(), "not a plain file");
    }

    /// A read may empty a file of procfs or tracefs (`/proc/kmsg`). All of them have length 0.
    #[test]
    fn a_file_of_length_zero_is_not_read() {
        assert_eq!(read(Path::new("/proc/self/stat"), 4096).unwrap(), b"");
    }
}
