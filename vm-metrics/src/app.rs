//! The wiring, and the only file that knows every room: config → sources and readers → manager → exporters → HTTP.

use std::future::pending;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{ApiSocket, Config, ConfigError, Document, Settings};
use crate::exporters::{self, Running};
use crate::host::Host;
use crate::http::{self, Site};
use crate::limits;
use crate::manager::{Manager, ManagerError, TickThread, Ticker};
use crate::model::in_one_line;
use crate::readers::{self, Configured, Purpose, Watch, Watching};
use crate::signals::Signals;
use crate::sources::push::Inbox;
use crate::sources::{self, SourceContext, Sources};

/// A scrape that hangs may not keep the daemon from leaving.
const DRAIN: Duration = Duration::from_secs(5);

/// Nor may a tick that hangs. Taking the programs off 200 TAPs takes 4 s; what TCX links are left goes with the process.
const LAST_TICK: Duration = Duration::from_secs(10);

/// A configuration that is checked in every part. Nothing is started.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    sources: Sources,
    readers: Vec<Configured>,
    exporters: exporters::Configured,
}

impl App {
    /// # Errors
    /// When something is wrong with the configuration: all that is.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::configure(config.clone()).or_else(|_| Self::load(config.into_document(), |_| ()))
    }

    /// Reads and checks a configuration; `adjust` is what the command line has to say.
    pub(crate) fn load(document: Document, adjust: impl Fn(&mut Config)) -> Result<Self, ConfigError> {
        document.check_all(|document| {
            let mut config = Config::of(document)?;
            adjust(&mut config);
            Self::configure(config)
        })
    }

    /// The first mistake is the error.
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let Config { settings, sources, readers, exporters, .. } = config;
        let Settings { host, trust, retention, .. } = settings.clone();
        let context = SourceContext::new(host, trust, retention);
        Ok(Self {
            sources: sources::configure(sources, &context)?,
            readers: readers::configure(readers)?,
            exporters: exporters::configure(exporters, &settings)?,
            settings,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the readers, for those who want to tick themselves.
    pub fn into_manager(self, purpose: Purpose) -> Result<Manager, ManagerError> {
        let Settings { host, retention, state_dir, trust, .. } = &self.settings;
        Manager::start(self.sources, self.readers, host, *retention, Some(state_dir), trust, purpose)
    }

    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// When the daemon cannot start, when the ticks end by themselves, and when on leaving the last tick does not end.
    pub(crate) fn serve(self) -> anyhow::Result<()> {
        // Of this process, whatever host it is told to look at.
        limits::check(&Host::default(), self.readers.iter().map(Configured::map_bytes).sum())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(async { self.serve_until(Signals::new()?).await });
        // What still renders has nobody left to read it.
        runtime.shutdown_background();
        served
    }

    async fn serve_until(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let Settings { interval, listen, http, metric_prefix, host, .. } = self.settings.clone();
        let exporters = std::mem::take(&mut self.exporters);
        let listener = http::listen(listen)
            .with_context(|| format!("cannot listen on {listen} (flag --listen, key listen)"))?;
        let address = listener.local_addr()?;

        let inboxes = self.sources.inboxes();
        let manager = self.into_manager(Purpose::Serve)?;
        let watch = manager.watch();
        let (ticks, mut ticker) = TickThread::spawn(manager, interval)?;
        for (inbox, required) in inboxes {
            serve_inbox(inbox, required, &ticks)?;
        }
        let _watching = host.is_this_kernel().then(|| call_ticks(&watch, &ticks)).flatten();
        let (exporter, running) = exporters.start(&metric_prefix, &ticker)?;
        tracing::info!(
            "listening on http://{address}, a tick every {}",
            humantime::format_duration(interval)
        );
        let site = Site::new(exporter, ticker.clone());
        serve_api(&http.socket, &site)?;
        let (leave, leaving) = oneshot::channel::<()>();
        let server = tokio::spawn(http::serve(listener, site.for_network(&http), async {
            // An error means that the sender is gone, which is as good a reason to leave.
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

/// Why a manager cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Manager(#[from] ManagerError),
}

impl Manager {
    /// Reads processes and TAP devices, and attaches nothing: the baseline. It knows no VMs until a source is set.
    ///
    /// ```
    /// assert_eq!(vm_metrics::Manager::new().collect_all(), Ok(Vec::new()));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::baseline(&Host::default())
    }

    /// Does what a configuration says, with its sources and its readers, the eBPF programs among them.
    ///
    /// ```
    /// use std::path::Path;
    /// use vm_metrics::{Config, Manager, readers::Purpose};
    ///
    /// let config = Config::parse(Path::new("example"), "[readers.tap_ebpf]\nenabled = false")?;
    /// let manager = Manager::with_config(config, Purpose::Look)?;
    /// assert!(manager.collect().parts.iter().any(|part| part.name == "proc_scan"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the configuration is wrong, or going on would harm, for example because a daemon has the pins.
    pub fn with_config(config: Config, purpose: Purpose) -> Result<Self, StartError> {
        Ok(App::new(config)?.into_manager(purpose)?)
    }

    /// Of one host, which may be made of files.
    pub(crate) fn baseline(host: &Host) -> Self {
        let start = || {
            let mut config = Config::builtin()?;
            config.readers.switch_off(readers::TAP_EBPF);
            let readers = readers::configure(config.readers)?;
            let none = Sources::new(Vec::new());
            Ok::<_, StartError>(Self::start(
                none,
                readers,
                host,
                config.settings.retention,
                None,
                &config.settings.trust,
                Purpose::Look,
            )?)
        };
        start().expect("the built-in configuration is good, and no reader of the baseline refuses to start")
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}

/// A TAP that comes is looked at now, not at the next tick; nor do last words wait.
fn call_ticks(watch: &Watch, ticks: &TickThread) -> Option<Watching> {
    let waker = ticks.waker();
    watch
        .spawn(move || waker.wake())
        .inspect_err(|error| tracing::warn!("{error}: what happens to TAPs is seen at the next tick"))
        .ok()
}

/// Where orchestrators push VMs. With `enabled = "auto"` the daemon does without, should it not be possible.
fn serve_inbox(inbox: Inbox, required: bool, ticks: &TickThread) -> anyhow::Result<()> {
    let Inbox { socket, store } = inbox;
    let Some(listener) = bind_socket(&socket, required, "nobody can push VMs")? else { return Ok(()) };
    tracing::info!("VMs can be pushed to {}", socket.display());
    let waker = ticks.waker();
    // It ends with the runtime: what was pushed is in files by the time it is answered.
    tokio::spawn(http::serve(listener, http::push::router(store, move || waker.wake()), pending()));
    Ok(())
}

/// The API for those who administer the host, with all errors.
fn serve_api(socket: &ApiSocket, site: &Site) -> anyhow::Result<()> {
    let (socket, required) = match socket {
        ApiSocket::Off => return Ok(()),
        ApiSocket::Auto(socket) => (socket, false),
        ApiSocket::On(socket) => (socket, true),
    };
    let Some(listener) = bind_socket(socket, required, "no errors are shown there")? else { return Ok(()) };
    tracing::info!("the API with all errors is on {}", socket.display());
    tokio::spawn(http::serve(listener, site.for_socket(), pending()));
    Ok(())
}

/// `None` where a socket that is not required cannot be.
fn bind_socket(socket: &Path, required: bool, otherwise: &str) -> anyhow::Result<Option<UnixListener>> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if !required && !directory.is_dir() {
        return Ok(None);
    }
    // It makes the directory, too.
    match http::push::bind(socket).with_context(|| format!("cannot listen on {}", socket.display())) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if required => Err(error),
        Err(error) => {
            tracing::warn!("{}: {otherwise}", in_one_line(error.as_ref()));
            Ok(None)
        }
    }
}

/// Waits for the last answers, the last tick and the last push, but not forever.
async fn ended(server: JoinHandle<()>, mut ticker: Ticker, exporters: Running) -> anyhow::Result<()> {
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
    use crate::sources::{InstanceSource, Listing, SourceError};

    /// A source whose every call is a call of this.
    struct Broken(fn());

    impl InstanceSource for Broken {
        fn list_running_instances_for_metrics(&mut self) -> Result<Listing, SourceError> {
            (self.0)();
            Ok(Listing::default())
        }
    }

    fn app(list: fn()) -> App {
        let text = "listen = \"127.0.0.1:0\"\n";
        let settings = Config::parse(Path::new("test.toml"), text).unwrap().settings;
        let sources = Sources::new(vec![("broken", Box::new(Broken(list)))]);
        App { settings, sources, readers: Vec::new(), exporters: exporters::Configured::default() }
    }

    /// The signals are those of the whole process, so this is one test.
    #[test]
    fn ticks_that_have_ended_or_hang_do_not_keep_the_daemon() {
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
