//! The actions that a test requests of a tenant.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An action of a tenant. [`Tenant::perform`](super::Tenant::perform) returns when it is done, with a number if the
/// action names one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Enters a new user namespace as its root, and the other requested namespaces.
    Unshare {
        net: bool,
        mount: bool,
        pid: bool,
    },
    /// Opens a TAP in its network namespace, and makes it if absent. Returns the descriptor.
    OpenTap {
        name: String,
        multi_queue: bool,
        up: bool,
    },
    /// Opens a file for reading, or else for writing. Returns the descriptor.
    OpenFile {
        path: PathBuf,
    },
    /// Opens a path with O_PATH, which needs no right to the file. Returns the descriptor.
    OpenPath {
        path: PathBuf,
    },
    /// Opens `count` descriptors on one file.
    OpenMany {
        path: PathBuf,
        count: usize,
    },
    /// Duplicates a descriptor like dup2.
    Duplicate {
        from: RawFd,
        to: RawFd,
    },
    Close {
        fd: RawFd,
    },
    /// Sends frames of [`FRAME`](super::FRAME) bytes from the guest.
    Send {
        fd: RawFd,
        frames: u64,
    },
    /// Reads all frames that wait for the guest. Returns their bytes.
    Take {
        fd: RawFd,
    },
    /// Overwrites its command line in memory, which must be long enough.
    RewriteArgv {
        argv: Vec<String>,
    },
    /// Executes another program. A link to the test program continues as a tenant. Only these descriptors stay open.
    Exec {
        program: PathBuf,
        argv: Vec<String>,
        keep: Vec<RawFd>,
    },
    /// Continues in a child. The parent ends, or stays idle. Returns the child's pid.
    Fork {
        parent_stays: bool,
    },
    /// Starts `count` threads of this name.
    StartThreads {
        name: String,
        count: usize,
    },
    /// Mounts an empty tmpfs. Needs its own mount namespace.
    MountTmpfs {
        path: PathBuf,
    },
    /// Mounts its own file system with one file of this name. Needs its own mount namespace. Other users cannot even
    /// stat the file, and with `hangs` a reader waits for ever.
    MountFuse {
        path: PathBuf,
        file: String,
        hangs: bool,
    },
    /// Starts a child that [`Action::Block`] blocks by this file of a hanging FUSE file system. Returns its pid.
    StartBlockTarget {
        file: PathBuf,
    },
    /// Blocks the child's `stat`, `exe`, `cmdline` and `io` from soon after on.
    Block,
    /// Listens on a Unix socket, and serves a body for each path like VMMs' HTTP servers.
    ServeHttp {
        socket: PathBuf,
        answers: Vec<(String, String)>,
    },
    /// Listens on a Unix socket, and serves a JSON value for each command like QEMU's monitor.
    ServeQmp {
        socket: PathBuf,
        answers: Vec<(String, String)>,
    },
    /// Starts `count` programs and keeps them. `{n}` in an argument is the number of the program.
    Spawn {
        program: PathBuf,
        argv: Vec<String>,
        count: usize,
    },
    /// Opens a TAP in a new network namespace without entering it. Returns the descriptor.
    OpenForeignTap {
        name: String,
    },
    /// Makes `count` network namespaces with a TAP of this name in each, and keeps them.
    OpenForeignTaps {
        name: String,
        count: usize,
    },
    /// Starts and ends a program repeatedly until [`Action::Stop`], with `pause` milliseconds between starts.
    KeepSpawning {
        program: PathBuf,
        argv: Vec<String>,
        pause: u64,
    },
    /// Swaps repeatedly until [`Action::Stop`]: the descriptors `to` duplicate `one`, then `other`.
    KeepSwapping {
        one: RawFd,
        other: RawFd,
        to: Vec<RawFd>,
    },
    /// Opens and closes a descriptor repeatedly until [`Action::Stop`], so that their number changes.
    KeepOpening,
    /// Makes `count` veth pairs, and flaps one after the other until [`Action::Stop`].
    KeepFlapping {
        count: usize,
    },
    /// Gets a path over HTTP from a TCP address. Returns the status of a complete response.
    Get {
        address: SocketAddr,
        path: String,
    },
    /// Opens `count` TCP connections, sends a text over each if possible, and reads nothing.
    Connect {
        address: SocketAddr,
        text: String,
        count: usize,
    },
    /// Opens TCP connections repeatedly until [`Action::Stop`], each with a text and then a reset.
    KeepConnecting {
        address: SocketAddr,
        text: String,
    },
    /// Makes a TAP, sends a frame and closes the TAP, repeatedly until [`Action::Stop`].
    KeepRemakingTap {
        name: String,
    },
    /// Opens and closes connections to an HTTP server repeatedly until [`Action::Stop`]. Some send a request.
    KeepRequesting {
        address: SocketAddr,
    },
    /// Sets the pause after each round of all background actions.
    Rest {
        pause: u64,
    },
    /// Ends all background actions and started programs. Returns the number of rounds.
    Stop,
}
