//! The wiring, and the only file that knows every room: config → sources and readers → manager → exporters → HTTP.

use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{Config, ConfigError, Settings};
use crate::exporters::prometheus::PrometheusExporter;
use crate::http;
use crate::manager::{Manager, ManagerError, TickThread};
use crate::readers::{self, Configured, Purpose};
use crate::sources::{self, Sources};

/// A scrape that hangs may not keep the daemon from leaving.
const DRAIN: Duration = Duration::from_secs(5);

/// A configuration that is checked in every part. Nothing is started.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    sources: Sources,
    readers: Vec<Configured>,
}

impl App {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let Config { settings, sources, readers } = config;
        Ok(Self {
            sources: sources::configure(sources, &settings.host)?,
            readers: readers::configure(readers)?,
            settings,
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the readers, for those who want to tick themselves.
    pub fn into_manager(self, purpose: Purpose) -> Result<Manager, ManagerError> {
        let Settings { host, retention, .. } = &self.settings;
        Manager::new(self.sources, self.readers, host, *retention, purpose)
    }

    /// Serves until SIGINT or SIGTERM.
    pub fn serve(self) -> anyhow::Result<()> {
        raise_open_files();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve_async())
    }

    async fn serve_async(self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let Settings { interval, listen, metric_prefix, .. } = self.settings.clone();
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (flag --listen, key listen)"))?;
        let address = listener.local_addr()?;

        let (_ticks, ticker) = TickThread::spawn(self.into_manager(Purpose::Serve)?, interval)?;
        let exporter = PrometheusExporter::new(&metric_prefix, ticker.clone());
        tracing::info!(
            "listening on http://{address}, a tick every {}",
            humantime::format_duration(interval)
        );

        let (leave, leaving) = oneshot::channel::<()>();
        let server = axum::serve(listener, http::router(exporter, ticker)).with_graceful_shutdown(async {
            // An error means that the sender is gone, which is as good a reason to leave.
            let _ = leaving.await;
        });
        let signalled = async move {
            tokio::select! {
                _ = interrupt.recv() => tracing::info!("SIGINT: leaving"),
                _ = terminate.recv() => tracing::info!("SIGTERM: leaving"),
            }
            drop(leave);
            tokio::time::sleep(DRAIN).await;
            tracing::warn!("a connection is still open: leaving without its end");
        };
        tokio::select! {
            served = server => served.context("the HTTP server ended"),
            () = signalled => Ok(()),
        }
    }
}

/// Readers keep about ten files per VM open.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files from {:?}: {errno}", limit.current);
    }
}
