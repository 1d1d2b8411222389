//! The signals that end the daemon, and the one that must not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals to this process, from when this is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the daemon. systemd would take the end by SIGHUP for a clean one.
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: the configuration is read at the start only, so restart the daemon");
                }
            }
        }
    }
}
