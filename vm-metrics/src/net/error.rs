//! Errors of network namespaces and of rtnetlink.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Why a namespace or a device cannot be looked at.
#[derive(Clone, Debug, Error)]
pub enum NetError {
    #[error("netlink: cannot {operation}: {source}")]
    Netlink { operation: &'static str, source: Arc<io::Error> },
    #[error("cannot enter the network namespace net:[{netns}]: {problem} (it needs CAP_SYS_ADMIN)")]
    Namespace { netns: u64, problem: String, errno: Option<i32> },
}

impl NetError {
    /// The error number of the kernel, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. } => source.raw_os_error(),
            Self::Namespace { errno, .. } => *errno,
        }
    }
}
