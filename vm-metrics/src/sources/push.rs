//! Source `push`: VMs that orchestrators push over a socket.
//!
//! Each VM is a file, so the next daemon has it too. `http/push.rs` serves the socket and writes the files.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::json_problem;
use super::{Listing, Precedence, Source, SourceContext, SourceDef, SourceError, configured_path};
use crate::own_dir::{DirError, OwnDir, PRIVATE};
use crate::sources::declared::DeclaredVm;
use crate::sources::declared::pid_guard::PidGuard;
use crate::sources::files::watched::{MAX_ENTRIES, WatchedFiles, is_full};

const DEFAULT_SOCKET: &str = "/run/vm-metrics/push.sock";

/// Bytes of one VM, in a request and in its file.
pub const VM_LIMIT: usize = 64 << 10;

/// Characters of an id: it becomes a label, and a file's name.
const MAX_ID_CHARS: usize = 64;

pub const SOURCE: SourceDef = SourceDef {
    name: "push",
    help: "VMs that orchestrators push over a socket",
    precedence: Precedence::Pushed,
    config: r#"# VMs that orchestrators push: PUT and DELETE /api/v1/instances/{id} over a Unix socket, which only the daemon's user
# may use. "auto" serves it where its directory is there.
[sources.push]
enabled = "auto"
# socket = "/run/vm-metrics/push.sock"
# What was pushed is kept here for the next start of the daemon; by default the directory pushed beside the socket.
# No other user may write to the directories of both.
# dir = "/run/vm-metrics/pushed"
"#,
    configure: |section, context| {
        let config: PushConfig = section.options()?;
        let Some(socket) = configured_path(&context.host, config.socket, DEFAULT_SOCKET) else {
            return Ok(None);
        };
        let Some(parent) = socket.parent().filter(|_| socket.is_absolute()) else {
            return Err(section.refusal("socket", &format!("{} is not an absolute path", socket.display())));
        };
        let store = Store { dir: config.dir.unwrap_or_else(|| parent.join("pushed")) };
        Ok(Some(Box::new(Push::new(Inbox { socket, store }, context))))
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PushConfig {
    socket: Option<PathBuf>,
    dir: Option<PathBuf>,
}

/// A socket that the daemon serves, and where that which is pushed goes.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub socket: PathBuf,
    pub store: Store,
}

#[derive(Debug)]
struct Push {
    context: SourceContext,
    inbox: Inbox,
    files: WatchedFiles<(DeclaredVm, PidGuard)>,
}

impl Push {
    fn new(inbox: Inbox, context: &SourceContext) -> Self {
        let files = WatchedFiles::new(context.operators.clone(), VM_LIMIT as u64);
        Self { context: context.clone(), inbox, files }
    }

    /// Whose daemon serves the socket, where that is another user than root, who asks.
    fn other_user(&self) -> Option<SourceError> {
        let path = self.inbox.socket.parent()?;
        let owner = OwnDir::open(path).err()?.owner_for_root()?;
        (!self.context.operators.include(owner))
            .then(|| SourceError::OtherUser { path: path.to_owned(), owner })
    }
}

impl Source for Push {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        let dir = &self.inbox.store.dir;
        if let Some(other) = self.other_user() {
            listing.problems.push(other);
            return Ok(listing);
        }
        let paths = match self.files.names(dir, &mut listing.problems) {
            // Nothing was pushed yet; or there is no place for the socket either.
            Err(SourceError::Absent { .. }) => {
                let place = self.inbox.socket.parent().unwrap_or(Path::new("/"));
                match self.context.operators.check_directory(place) {
                    Err(refused @ SourceError::Content { .. }) => listing.problems.push(refused),
                    checked => checked?,
                }
                Vec::new()
            }
            // Not a failure of the whole: `snapshot` may be run by another user than the daemon's.
            Err(refused @ SourceError::Content { .. }) => {
                listing.problems.push(refused);
                Vec::new()
            }
            paths => paths?,
        };
        let parse = |_: &Path, content: &[u8]| Ok((parse(content)?, PidGuard::default()));
        for (path, (vm, guard)) in self.files.look(paths, &mut listing.problems, parse) {
            vm.list(&self.context, Some(path), guard, &mut listing);
        }
        Ok(listing)
    }

    fn inbox(&self) -> Option<Inbox> {
        Some(self.inbox.clone())
    }
}

fn parse(content: &[u8]) -> Result<DeclaredVm, String> {
    let vm: DeclaredVm = serde_json::from_slice(content).map_err(|error| json_problem(&error))?;
    vm.check()?;
    Ok(vm)
}

/// The VMs that were pushed: a file each.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The VM that a body declares for an id, or the problem.
    pub fn read(id: &str, body: &[u8]) -> Result<DeclaredVm, String> {
        if id.chars().count() > MAX_ID_CHARS {
            return Err(format!("the id has more than {MAX_ID_CHARS} characters"));
        }
        let mut vm: DeclaredVm = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if vm.id.is_empty() {
            id.clone_into(&mut vm.id);
        }
        if vm.id != id {
            return Err(format!("the body is of {:?}, the path of {id:?}", vm.id));
        }
        vm.check()?;
        Ok(vm)
    }

    /// Whether it is new. Half a file is never there. [`StorageFull`](io::ErrorKind::StorageFull): no room for one more.
    pub fn put(&self, vm: &DeclaredVm) -> io::Result<bool> {
        let dir = OwnDir::make(&self.dir, PRIVATE)?;
        let name = file_name(&vm.id);
        let new = !dir.has_file(&name)?;
        if new && is_full(&self.dir)? {
            let problem = format!("there are {MAX_ENTRIES} VMs already");
            return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
        }
        dir.replace(&name, &serde_json::to_vec(vm)?)?;
        Ok(new)
    }

    /// Whether it was there.
    pub fn remove(&self, id: &str) -> io::Result<bool> {
        match OwnDir::open(&self.dir) {
            Err(DirError::Absent { .. }) => Ok(false),
            dir => Ok(dir?.unlink(&file_name(id))?),
        }
    }
}

/// All but letters, digits and `-` becomes `_xx`: no id leads elsewhere, and two ids are two files.
fn file_name(id: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    format!("{}.json", id.bytes().map(encode).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::host::Host;
    use crate::model::Nic;
    use crate::model::Trust;

    fn push(dir: &Path) -> Push {
        let store = Store { dir: dir.join("pushed") };
        let host = Host::new("/none", "/none");
        let context = SourceContext::new(host, Trust::default(), Duration::ZERO);
        Push::new(Inbox { socket: dir.join("push.sock"), store }, &context)
    }

    /// It stays until it is removed.
    #[test]
    fn a_pushed_vm_outlives_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = push(dir.path());
        assert_eq!(source.list().unwrap().instances, []);
        let store = source.inbox().unwrap().store;
        let vm = Store::read("a/../b", br#"{"name": "web", "taps": ["tap0"], "vcpus": 2, "project": "p"}"#)
            .unwrap();
        assert!(store.put(&vm).unwrap());
        assert!(!store.put(&vm).unwrap());
        let files: Vec<_> =
            fs::read_dir(dir.path().join("pushed")).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files, [dir.path().join("pushed/a_2f_2e_2e_2fb.json")]);
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);

        let listing = push(dir.path()).list().unwrap();
        let web = &listing.instances[0];
        assert_eq!((web.id.as_str(), web.name.as_str(), web.allocated_vcpus), ("a/../b", "web", Some(2)));
        assert_eq!((&web.nics, web.project.as_deref()), (&vec![Nic::local("tap0")], Some("p")));
        assert!(store.remove("a/../b").unwrap());
        assert!(!store.remove("a/../b").unwrap());
        assert_eq!(source.list().unwrap().instances, []);
    }

    #[test]
    fn one_vm_too_many_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = push(dir.path());
        let store = source.inbox().unwrap().store;
        let vm = |id: &str| Store::read(id, b"{}").unwrap();
        store.put(&vm("a")).unwrap();
        let pushed = dir.path().join("pushed");
        for at in 1..MAX_ENTRIES {
            fs::hard_link(pushed.join("a.json"), pushed.join(format!("b{at}.json"))).unwrap();
        }
        assert_eq!(store.put(&vm("c")).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!store.put(&vm("a")).unwrap(), "it is there already");

        // As another program may write them.
        fs::write(pushed.join("c.json"), "{\"id\": \"c\"}").unwrap();
        let listing = source.list().unwrap();
        let has_c = listing.instances.iter().any(|vm| vm.id == "c");
        assert_eq!((listing.instances.len(), has_c), (MAX_ENTRIES, false));
        let problem = format!("{}: 1 of its entries are left out: more than 16384", pushed.display());
        assert_eq!(listing.problems[0].to_string(), problem);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = push(dir.path());
        let store = source.inbox().unwrap().store;
        let vm = Store::read("a", b"{}").unwrap();
        store.put(&vm).unwrap();
        fs::set_permissions(dir.path().join("pushed"), Permissions::from_mode(0o777)).unwrap();
        let listing = source.list().unwrap();
        let problem = listing.problems[0].to_string();
        assert!(problem.contains("other users can change it"), "{problem}");
        assert_eq!(listing.instances, []);
        for error in [store.put(&vm).unwrap_err(), store.remove("a").unwrap_err()] {
            assert!(error.to_string().contains("has mode 0777"), "{error}");
        }
    }

    #[test]
    fn without_the_sockets_directory_the_source_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = push(&dir.path().join("none"));
        let error = source.list().unwrap_err();
        assert!(matches!(error, SourceError::Absent { path } if path == dir.path().join("none")));
    }

    #[test]
    fn a_bad_body_is_refused_with_the_reason() {
        for (id, body, problem) in [
            ("a", "{", "EOF while parsing"),
            ("a", r#"{"vcpu": 2}"#, "unknown field `vcpu`"),
            ("a", r#"{"taps": ["../x"]}"#, "\"../x\" cannot be the name of a network device"),
            ("a", r#"{"id": "b"}"#, "the body is of \"b\", the path of \"a\""),
            ("a", r#"{"pid": 0}"#, "pid 0 of \"a\" is no process"),
            (&"a".repeat(65), "{}", "more than 64 characters"),
        ] {
            let error = Store::read(id, body.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{body}: {error}");
        }
    }
}
