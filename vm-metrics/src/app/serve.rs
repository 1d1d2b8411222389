//! `vm-metrics serve`: starts the ticks, the exporters and the HTTP server, and ends them in order.

use std::future::pending;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::App;
use crate::config::{ApiSocket, Settings};
use crate::exporters::ActiveExporters;
use crate::host::Host;
use crate::http::{self, Site, UnixSocket};
use crate::limits;
use crate::manager::{TickThread, Ticker};
use crate::model::in_one_line;
use crate::net::events::{EventPoller, PollerHandle};
use crate::readers::{Purpose, ReaderConfig};
use crate::signals::Signals;
use crate::sources::push::Inbox;

/// Time for the last answers: a hung scrape must not block the exit.
const DRAIN: Duration = Duration::from_secs(5);

/// Time for the last tick, which detaches the programs: 4 s for 200 TAPs. Remaining TCX links end with the process.
const LAST_TICK: Duration = Duration::from_secs(10);

impl App {
    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When the daemon cannot start, when the ticks end by themselves, or when the last tick hangs.
    pub(crate) fn serve(self) -> anyhow::Result<()> {
        // The limits are those of this process, also for a fixture host.
        limits::check(&Host::default(), self.setup.readers.iter().map(ReaderConfig::map_bytes).sum())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(async { self.serve_until(Signals::new()?).await });
        // Renderings under way have no reader any more.
        runtime.shutdown_background();
        served
    }

    async fn serve_until(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let Settings { interval, listen, http, metric_prefix, host, .. } = self.setup.settings.clone();
        let exporters = std::mem::take(&mut self.exporters);
        let listeners = http::listen(&listen)?;

        let inboxes = self.setup.sources.inboxes();
        let manager = self.into_manager(Purpose::Serve)?;
        let watch = manager.watch();
        let (ticks, mut ticker) = TickThread::spawn(manager, interval)?;
        for (inbox, required) in inboxes {
            serve_inbox(inbox, required, &ticks)?;
        }
        let _watching = host.is_this_kernel().then(|| call_ticks(&watch, &ticks)).flatten();
        let (exporter, running) = exporters.start(&metric_prefix, &ticker)?;
        tracing::info!(
            "listening on {}, a tick every {}",
            listeners.names(),
            humantime::format_duration(interval)
        );
        let site = Site::new(exporter, ticker.clone());
        serve_api(&http.socket, &site)?;
        let (leave, leaving) = oneshot::channel::<()>();
        let server = tokio::spawn(http::serve(listeners, site.for_everybody(&http), async {
            // An error means that the sender is dropped, which also ends the server.
            let _ = leaving.await;
        }));

        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = ticker.ended() => bail!("the ticks have ended by themselves"),
        };
        tracing::info!("{signal}: leaving");
        drop((leave, ticks));
        tokio::select! {
            ended = ended(server, ticker, running) => ended,
            signal = signals.next() => {
                tracing::warn!("{signal} again: leaving at once");
                Ok(())
            }
        }
    }
}

/// A TAP that comes is looked at now, not at the next tick; nor do last words wait.
fn call_ticks(watch: &EventPoller, ticks: &TickThread) -> Option<PollerHandle> {
    let waker = ticks.waker();
    watch
        .spawn(move || waker.wake())
        .inspect_err(|error| tracing::warn!("{error}: what happens to TAPs is seen at the next tick"))
        .ok()
}

/// Serves the socket for orchestrators. With `enabled = "auto"` the daemon starts without it if that fails.
fn serve_inbox(inbox: Inbox, required: bool, ticks: &TickThread) -> anyhow::Result<()> {
    let Inbox { socket, store } = inbox;
    let Some(listener) = bind_socket(&socket, "sources.push", required, "no VMs can be pushed")? else {
        return Ok(());
    };
    tracing::info!("VMs can be pushed to {}", socket.display());
    let waker = ticks.waker();
    // It ends with the runtime: a pushed VM is in its file before the answer.
    tokio::spawn(http::serve(listener, http::push::router(store, move || waker.wake()), pending()));
    Ok(())
}

/// Serves the API with all errors, for administrators.
fn serve_api(socket: &ApiSocket, site: &Site) -> anyhow::Result<()> {
    let (socket, required) = match socket {
        ApiSocket::Off => return Ok(()),
        ApiSocket::Auto(socket) => (socket, false),
        ApiSocket::On(socket) => (socket, true),
    };
    let Some(listener) = bind_socket(socket, "http", required, "no errors are shown there")? else {
        return Ok(());
    };
    tracing::info!("the API with all errors is on {}", socket.display());
    tokio::spawn(http::serve(listener, site.for_operators(), pending()));
    Ok(())
}

/// Binds the socket of a section's key `socket`; `None` if an optional socket fails.
fn bind_socket(
    socket: &Path,
    section: &str,
    required: bool,
    otherwise: &str,
) -> anyhow::Result<Option<UnixSocket>> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if !required && !directory.is_dir() {
        return Ok(None);
    }
    // Binding also makes the directory.
    let failed = || format!("cannot listen on {} (key socket of [{section}])", socket.display());
    match UnixSocket::bind(socket, http::OWNER).with_context(failed) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if required => Err(error),
        Err(error) => {
            tracing::warn!("{}: {otherwise}", in_one_line(error.as_ref()));
            Ok(None)
        }
    }
}

/// Waits for the last answers, the last tick and the last push, but not forever.
async fn ended(server: JoinHandle<()>, mut ticker: Ticker, exporters: ActiveExporters) -> anyhow::Result<()> {
    let last_tick = timeout(LAST_TICK, ticker.ended());
    let (drained, ticked, ()) = tokio::join!(timeout(DRAIN, server), last_tick, exporters.leave());
    if drained.is_err() {
        tracing::warn!("a connection is still open: leaving without its end");
    }
    ticked.map_err(|_| {
        anyhow!("the last tick does not end: left without it, programs may still be on the TAPs")
    })
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::config::Config;
    use crate::exporters;
    use crate::manager::Setup;
    use crate::model::{Batch, VmSet};
    use crate::net::namespaces::Namespaces;
    use crate::readers::{ReadReport, Reader};
    use crate::sources::Sources;

    /// A reader whose every call is a call of this.
    struct BrokenReader(fn());

    impl Reader for BrokenReader {
        fn read(&mut self, _: &VmSet, _: &mut Namespaces, _: &mut Batch) -> ReadReport {
            (self.0)();
            ReadReport::default()
        }
    }

    fn app(read: fn()) -> App {
        let text = "listen = \"127.0.0.1:0\"\n";
        let settings = Config::parse(Path::new("test.toml"), text).unwrap().settings;
        let readers = vec![ReaderConfig::running("broken", BrokenReader(read))];
        let sources = Sources::new(Vec::new());
        App { setup: Setup { settings, sources, readers }, exporters: exporters::ExportersConfig::default() }
    }

    /// The signals are those of the whole process, so this is one test.
    #[test]
    fn the_daemon_leaves_when_ticks_end_or_hang() {
        let error = app(|| panic!("a fault of ours")).serve().unwrap_err();
        assert!(error.to_string().contains("ended by themselves"), "{error}");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let leave = |signals: usize| {
            let began = Instant::now();
            let app = app(|| thread::sleep(LAST_TICK * 10));
            let served = runtime.block_on(async {
                let served = app.serve_until(Signals::new()?);
                let signal = async {
                    for _ in 0..signals {
                        kill_process(getpid(), Signal::TERM).unwrap();
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                };
                tokio::join!(served, signal).0
            });
            (served.map_err(|error| error.to_string()), began.elapsed())
        };
        let (twice, took) = leave(2);
        assert!(twice.is_ok() && took < LAST_TICK, "{twice:?} after {took:?}");
        let (once, took) = leave(1);
        assert!(once.unwrap_err().contains("the last tick does not end"));
        assert!((LAST_TICK..LAST_TICK * 2).contains(&took), "{took:?}");
    }
}
