//! The orders that a test gives to a tenant.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a tenant can be told. Each [`Tenant::perform`](super::Tenant::perform) returns when it is done; the answer is a number where one is named.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Enters new namespaces: a user namespace in which it is root, and with it those that are asked for.
    Unshare {
        net: bool,
        mount: bool,
        pid: bool,
    },
    /// Opens a TAP in its network namespace, made if it is not there. Answers with the descriptor.
    OpenTap {
        name: String,
        multi_queue: bool,
        up: bool,
    },
    /// Opens a file, for reading or else for writing. Answers with the descriptor.
    OpenFile {
        path: PathBuf,
    },
    /// Opens a path as a path (O_PATH), which needs no right to the file. Answers with the descriptor.
    OpenPath {
        path: PathBuf,
    },
    /// Opens so many descriptors on one file.
    OpenMany {
        path: PathBuf,
        count: usize,
    },
    /// As dup2.
    Duplicate {
        from: RawFd,
        to: RawFd,
    },
    Close {
        fd: RawFd,
    },
    /// The guest sends so many frames of [`FRAME`](super::FRAME) bytes.
    Send {
        fd: RawFd,
        frames: u64,
    },
    /// The guest takes all frames that wait for it. Answers with the bytes.
    Take {
        fd: RawFd,
    },
    /// Overwrites its command line in memory, which must be as long at least.
    RewriteArgv {
        argv: Vec<String>,
    },
    /// Becomes another program, which obeys if it is a link to the test program. Only these descriptors stay open.
    Exec {
        program: PathBuf,
        argv: Vec<String>,
        keep: Vec<RawFd>,
    },
    /// A child goes on in its place. The parent ends, or stays and does nothing. Answers with the child's pid.
    Fork {
        parent_stays: bool,
    },
    /// Starts so many threads of this name.
    StartThreads {
        name: String,
        count: usize,
    },
    /// Mounts an empty tmpfs there; needs a mount namespace of its own.
    MountTmpfs {
        path: PathBuf,
    },
    /// Mounts a file system of its own with one file of this name there; needs a mount namespace of its own. Others may
    /// not even look at the file, and who reads it waits for ever if it hangs.
    MountFuse {
        path: PathBuf,
        file: String,
        hangs: bool,
    },
    /// Starts a child that [`Action::Block`] holds up by this file of a FUSE file system that hangs. Answers with its pid.
    StartBlockTarget {
        file: PathBuf,
    },
    /// From soon after on, the child's `stat`, `exe`, `cmdline` and `io` do not answer.
    Block,
    /// Listens on a Unix socket, and answers each path with a body like the HTTP servers of VMMs.
    ServeHttp {
        socket: PathBuf,
        answers: Vec<(String, String)>,
    },
    /// Listens on a Unix socket, and answers each command with a JSON value like QEMU's monitor.
    ServeQmp {
        socket: PathBuf,
        answers: Vec<(String, String)>,
    },
    /// Starts so many programs, and keeps them. `{n}` in an argument is the number of the program.
    Spawn {
        program: PathBuf,
        argv: Vec<String>,
        count: usize,
    },
    /// Opens a TAP in a new network namespace, in which it is not itself. Answers with the descriptor.
    OpenForeignTap {
        name: String,
    },
    /// Makes so many network namespaces with a TAP of this name in each, and keeps them.
    OpenForeignTaps {
        name: String,
        count: usize,
    },
    /// Goes on starting and ending a program until [`Action::Stop`], with so many milliseconds between two starts.
    KeepSpawning {
        program: PathBuf,
        argv: Vec<String>,
        pause: u64,
    },
    /// Goes on swapping until [`Action::Stop`]: the descriptors `to` are duplicates of `one`, then of `other`.
    KeepSwapping {
        one: RawFd,
        other: RawFd,
        to: Vec<RawFd>,
    },
    /// Goes on opening and closing a descriptor until [`Action::Stop`]: it never has as many as before.
    KeepOpening,
    /// Makes so many pairs of veth devices, and takes one after the other up and down until [`Action::Stop`].
    KeepFlapping {
        count: usize,
    },
    /// Gets a path over HTTP from a TCP address. Answers with the status of a whole answer.
    Get {
        address: SocketAddr,
        path: String,
    },
    /// Opens so many TCP connections, sends a text over each if it can, and reads nothing.
    Connect {
        address: SocketAddr,
        text: String,
        count: usize,
    },
    /// Goes on opening TCP connections until [`Action::Stop`], each with a text and then a reset.
    KeepConnecting {
        address: SocketAddr,
        text: String,
    },
    /// Goes on making a TAP, sending a frame and closing it, until [`Action::Stop`].
    KeepRemakingTap {
        name: String,
    },
    /// Goes on opening and closing connections to an HTTP server until [`Action::Stop`]. Some send a request.
    KeepRequesting {
        address: SocketAddr,
    },
    /// What goes on rests for so many milliseconds after each round.
    Rest {
        pause: u64,
    },
    /// Ends all that goes on, and the programs that were started. Answers with the number of rounds.
    Stop,
}
