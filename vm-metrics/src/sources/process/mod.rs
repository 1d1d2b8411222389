//! The files of one process, each read with a limit.

pub mod argv;
pub mod lookup;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{SourceError, files};
use crate::host::Host;
use crate::procfs::{Credentials, Stat, executable, parse_credentials, parse_stat};

/// A line of some 50 numbers.
const STAT_LIMIT: u64 = 4 << 10;
/// A line for each hierarchy, each with a path.
const CGROUP_LIMIT: u64 = 64 << 10;
/// So much that a command line shows that it is too long.
const CMDLINE_LIMIT: u64 = argv::MAX_BYTES as u64 + 1;
/// 15 bytes and a newline; threads of the kernel have some more.
const COMM_LIMIT: u64 = 256;
/// Longer only with thousands of groups. Those beyond the limit give the daemon no rights.
const STATUS_LIMIT: u64 = 64 << 10;

/// Why a process could not be looked at.
#[derive(Debug)]
pub enum ReadError {
    /// It ended in the meantime: it is simply not there.
    Gone,
    Failed(SourceError),
}

#[derive(Debug)]
pub struct ProcessDir<'a> {
    pub host: &'a Host,
    pub pid: u32,
}

impl<'a> ProcessDir<'a> {
    pub fn new(host: &'a Host, pid: u32) -> Self {
        Self { host, pid }
    }

    /// Another process on the same host.
    pub fn other(&self, pid: u32) -> Self {
        Self { pid, ..*self }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.host.process(self.pid).join(file)
    }

    pub fn stat(&self) -> Result<Stat, ReadError> {
        let path = self.path("stat");
        let content = read(&path, STAT_LIMIT)?;
        parse_stat(&content)
            .map_err(|error| ReadError::Failed(SourceError::Content { path, problem: error.to_string() }))
    }

    /// How many descriptors it has: the size of the directory, which is 0 before Linux 6.2.
    pub fn descriptor_count(&self) -> Option<u64> {
        fs::metadata(self.path("fd")).ok().map(|directory| directory.len())
    }

    /// The content of the file of its control group; empty where that cannot be read.
    pub fn cgroup(&self) -> Vec<u8> {
        read(&self.path("cgroup"), CGROUP_LIMIT).unwrap_or_default()
    }

    pub fn argv(&self) -> Result<Vec<String>, ReadError> {
        let path = self.path("cmdline");
        let content =
            files::read_start(&path, CMDLINE_LIMIT).map_err(|error| read_error("read", path, error))?;
        Ok(argv::split(&content))
    }

    /// The user with whose rights it runs, by the owner of its directory. The kernel answers at once: nothing that the
    /// process does makes it slow. It decides the turn of a look, and never trust.
    pub fn owner(&self) -> Option<u32> {
        fs::metadata(self.path("")).ok().map(|directory| directory.uid())
    }

    /// The user who runs it. `None`: not known, or it has ended.
    ///
    /// A list of 65 536 groups makes this slow: it is not for the thread of the tick.
    pub fn uid(&self) -> Option<u32> {
        self.credentials().ok().map(|credentials| credentials.user())
    }

    /// The user and groups with whose rights it opens files.
    ///
    /// On a host made of files that has no `status`, the owner of the process's directory.
    pub fn credentials(&self) -> Result<Credentials, ReadError> {
        let path = self.path("status");
        let content = match files::read_start(&path, STATUS_LIMIT) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.credentials_of_owner(),
            Err(error) => return Err(read_error("read", path, error)),
        };
        parse_credentials(&content)
            .map_err(|error| ReadError::Failed(SourceError::content(path, error.to_string())))
    }

    fn credentials_of_owner(&self) -> Result<Credentials, ReadError> {
        let path = self.path("");
        let directory = fs::metadata(&path).map_err(|error| read_error("stat", path, error))?;
        let (uid, gid) = (directory.uid(), directory.gid());
        Ok(Credentials { real_uid: uid, effective_uid: uid, fs_uid: uid, fs_gid: gid, groups: Vec::new() })
    }

    /// The file name of its program. `None` for a kernel thread, and for a process that has ended.
    ///
    /// By `exe`, for anyone may change `comm` and the arguments. Where `exe` may not be read, which is so for
    /// processes of other users without `CAP_SYS_PTRACE`, by the arguments, or by `comm` if that names a hypervisor.
    pub fn executable(&self) -> Result<Option<String>, ReadError> {
        let path = self.path("exe");
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(executable::file_name(&target.to_string_lossy()).to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let argv = self.argv()?;
                let Some(program) = argv.first().map(|program| executable::file_name(program)) else {
                    return Ok(None);
                };
                if executable::hypervisor(program).is_some() {
                    return Ok(Some(program.to_owned()));
                }
                let command = read(&self.path("comm"), COMM_LIMIT).unwrap_or_default();
                let command = String::from_utf8_lossy(&command);
                let hypervisor = executable::of_command(command.trim_end_matches('\n'));
                Ok(Some(hypervisor.unwrap_or(program).to_owned()))
            }
            Err(error) => Err(read_error("read link", path, error)),
        }
    }
}

/// For files that the kernel makes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    files::read_kernel(path, limit).map_err(|error| read_error("read", path, error))
}

pub fn read_error(operation: &'static str, path: impl Into<PathBuf>, error: io::Error) -> ReadError {
    let reaped = error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if reaped || error.kind() == io::ErrorKind::NotFound {
        return ReadError::Gone;
    }
    ReadError::Failed(SourceError::io(operation, path, error))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sources::proc_scan::fixture::{Fake, Fixture, without_capabilities};

    #[test]
    fn the_user_of_a_process_is_known() {
        let host = Host::default();
        let me = ProcessDir::new(&host, std::process::id());
        assert_eq!(me.uid(), Some(rustix::process::getuid().as_raw()));
        let fixture = Fixture::with(&[Fake::QEMU]);
        let host = fixture.host();
        let fake = ProcessDir::new(&host, 100);
        assert_eq!(fake.uid(), Some(rustix::process::getuid().as_raw()), "the directory's owner");
        fs::write(fake.path("status"), "Uid:\t0\t64055\t0\t0\nGid:\t0\t0\t0\t0\n").unwrap();
        assert_eq!(fake.uid(), Some(64055));
        fs::write(fake.path("status"), "Uid:\t0").unwrap();
        assert_eq!(fake.uid(), None);
        assert_eq!(ProcessDir::new(&host, 101).uid(), None);
    }

    #[test]
    fn without_rights_comm_names_a_hypervisor() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu-system-x86_64");
        fs::copy("/bin/sh", &program).unwrap();
        let mut vmm = Command::new(program)
            .arg0("microvm@web")
            .args(["-c", "echo; read end", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The kernel gives the new name during the exec, after the old files have been closed.
        vmm.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let host = Host::default();
        let process = ProcessDir::new(&host, vmm.id());
        let name = without_capabilities(|| process.executable().unwrap());
        drop(vmm.stdin.take());
        vmm.wait().unwrap();
        assert_eq!(name.as_deref(), Some("qemu-system-x86"));
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let fixture = Fixture::with(&[Fake::QEMU]);
        let host = fixture.host();
        let process = ProcessDir::new(&host, 100);
        let long = [&b"qemu\0-name\0"[..], &vec![b'x'; 3 << 20]].concat();
        fs::write(process.path("cmdline"), long).unwrap();
        let argv = process.argv().unwrap();
        assert_eq!((argv[0].as_str(), argv[1].as_str()), ("qemu", "-name"));
    }

    #[test]
    fn a_descriptor_more_shows_in_their_number() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "echo; read go; exec 5</dev/null; echo; read go"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut orders, answers) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let mut answers = BufReader::new(answers).lines();
        let host = Host::default();
        let process = ProcessDir::new(&host, shell.id());
        answers.next().unwrap().unwrap();
        let before = process.descriptor_count().unwrap();
        orders.write_all(b"go\n").unwrap();
        answers.next().unwrap().unwrap();
        assert_eq!(process.descriptor_count(), Some(before + 1), "from Linux 6.2 on");
        drop(orders);
        shell.wait().unwrap();
        assert_eq!(process.descriptor_count(), None);
    }
}
