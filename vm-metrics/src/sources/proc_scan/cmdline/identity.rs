//! Which VM a command line is of, strongest claim first. Pure.

use std::path::{Component, Path};

use crate::sources::values::uuid;

/// File names that many sockets have, each in the directory of its VM; without ending.
const COMMON_SOCKETS: &[&str] = &[
    "api",
    "ch",
    "ch-api",
    "clh",
    "clh-api",
    "cloud-hypervisor",
    "cloudhypervisor",
    "fc",
    "fc-api",
    "firecracker",
    "firecracker-api",
    "hypervisor",
    "sock",
    "socket",
    "vm",
    "vmm",
];

/// Directories that are no single VM's.
const COMMON_DIRECTORIES: &[&str] = &[
    "api",
    "ch",
    "cloud-hypervisor",
    "data",
    "fc",
    "firecracker",
    "home",
    "lib",
    "lock",
    "opt",
    "run",
    "shm",
    "sock",
    "socket",
    "sockets",
    "srv",
    "tmp",
    "var",
    "virtink",
    "vm",
    "vmm",
    "vms",
];

/// Directories within that of a VM: a jail has its socket in `root/run`.
const INNER_DIRECTORIES: &[&str] = &["run", "root"];

/// Prefixes and suffixes of socket names around the name of the VM.
const PREFIXES: &[&str] = &["fc-", "firecracker-"];
const ENDINGS: &[&str] = &["-socket", "-sock", "-event-monitor-fifo"];

/// The claims of a command line about its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uuid: Option<String>,
    /// The manager's own number: `-id` of Proxmox.
    pub given: Option<String>,
    /// The user's: `-name` of QEMU, `--id` of Firecracker.
    pub name: Option<String>,
    /// The socket whose path names the VM where nothing else does.
    pub api_socket: Option<String>,
    /// A name that many may have, for want of any other.
    pub common_name: Option<String>,
    /// Paths that only this VM has while it runs: sockets and the pid file, as the process sees them.
    pub paths: Vec<String>,
}

/// The surroundings of the process, from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub cwd: Option<String>,
    /// The directory that is its root, unless that is the host's.
    pub root: Option<String>,
    /// The UID of the Kubernetes pod.
    pub pod: Option<String>,
    pub service: Option<String>,
    pub scope: Option<String>,
}

/// The origin of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    Uuid,
    Given,
    Name,
    Socket,
    Pod,
    Nothing,
}

impl Identity {
    /// The strongest there is.
    pub fn id(&self, place: &Surroundings) -> (Option<String>, Basis) {
        let claims = [
            (self.uuid.clone(), Basis::Uuid),
            (self.given.clone(), Basis::Given),
            (self.name.clone(), Basis::Name),
        ];
        let said = claims.into_iter().find(|(claim, _)| claim.is_some());
        said.unwrap_or_else(|| self.by_socket(place))
    }

    /// Without a name on the command line, that of the socket.
    pub fn name(&self, place: &Surroundings) -> Option<String> {
        self.name.clone().or_else(|| self.given.clone()).or_else(|| self.by_socket(place).0)
    }

    fn by_socket(&self, place: &Surroundings) -> (Option<String>, Basis) {
        let Some(socket) = &self.api_socket else { return (None, Basis::Nothing) };
        if let Some(name) = socket_name(&absolute(socket, place)) {
            return (Some(name), Basis::Socket);
        }
        match (&place.pod, &self.common_name) {
            (Some(pod), _) => (Some(pod.clone()), Basis::Pod),
            (None, Some(name)) => (Some(name.clone()), Basis::Socket),
            (None, None) => (None, Basis::Nothing),
        }
    }
}

/// The file name of a socket without its ending.
pub fn stem(path: &str) -> Option<String> {
    Some(Path::new(path).file_stem()?.to_string_lossy().into_owned())
}

/// A path of the process, in its working directory where it is relative.
pub fn absolute(path: &str, place: &Surroundings) -> String {
    match &place.cwd {
        Some(cwd) if !path.starts_with('/') => format!("{}/{path}", cwd.trim_end_matches('/')),
        _ => path.to_owned(),
    }
}

/// The name of the file, else that of its directory, unless many have it.
fn socket_name(path: &str) -> Option<String> {
    let (stem, path) = (stem(path)?, Path::new(path));
    let stem = ENDINGS.iter().find_map(|ending| stem.strip_suffix(ending)).unwrap_or(&stem);
    let is_common = |stem: &str| stem.is_empty() || COMMON_SOCKETS.contains(&stem.trim_start_matches('.'));
    if !is_common(stem) {
        let name = PREFIXES.iter().find_map(|prefix| stem.strip_prefix(prefix)).unwrap_or(stem);
        return (!name.is_empty()).then(|| uuid::canonical(name));
    }
    let mut directory = path.parent()?;
    for inner in INNER_DIRECTORIES {
        directory = directory.parent().filter(|_| directory.ends_with(inner)).unwrap_or(directory);
    }
    let Some(Component::Normal(name)) = directory.components().next_back() else { return None };
    let name = name.to_string_lossy();
    let is_users = directory.parent().is_some_and(|parent| parent.ends_with("run/user"));
    (!COMMON_DIRECTORIES.contains(&&*name) && !is_users).then(|| uuid::canonical(&name))
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
