//! The end of the demo: by Ctrl-C, SIGTERM or time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

const SECOND: Duration = Duration::from_secs(1);

/// Records signals, which no longer end the process.
#[derive(Debug)]
pub struct Stop {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Instant>,
}

impl Stop {
    pub fn new(after: Option<Duration>) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let (interrupt, terminate) = {
            let _runtime = runtime.enter();
            let listen = |kind| signal(kind).context("cannot listen for signals");
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
        };
        Ok(Self { runtime, interrupt, terminate, deadline: after.map(|after| Instant::now() + after) })
    }

    /// Waits for a second; returns true at once when it is time to end.
    pub fn within_a_second(&mut self) -> bool {
        let Self { runtime, interrupt, terminate, deadline } = self;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = tokio::time::sleep(left.unwrap_or(SECOND).min(SECOND)) => left.is_some_and(|left| left <= SECOND),
            }
        })
    }
}
