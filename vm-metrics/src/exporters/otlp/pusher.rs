//! Starts the push: runtime, exporter, reader, instruments and thread.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, MetricExporter, Protocol as OtlpProtocol, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, ManualReader, SdkMeterProvider, Stream, Temporality};
use thiserror::Error;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use super::chunks::MAX_POINTS;
use super::config::{OtlpConfig, Protocol};
use super::http_client::{Client, LastFailure};
use super::push_loop::{NextChunk, PushLoop};
use super::reporting_exporter::ReportingExporter;
use super::tls::TlsError;
use crate::exporters::View;
use crate::exporters::exporter_stats::PushStats;
use crate::exporters::otel::{self, ForgettingReader, register};
use crate::manager::Ticker;

/// How long leaving waits for the last push.
const LAST: Duration = Duration::from_secs(5);

const NAME: &str = "vm-metrics";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Error)]
pub(crate) enum PushError {
    #[error("otlp: no threads")]
    Threads(#[from] std::io::Error),
    #[error("otlp: TLS")]
    Tls(#[from] TlsError),
    #[error("otlp")]
    Exporter(#[from] ExporterBuildError),
}

/// PushLoop until it is dropped.
#[derive(Debug)]
pub(crate) struct Pusher {
    leave: mpsc::Sender<oneshot::Sender<bool>>,
    _network: Network,
}

/// The runtime for the network; not the daemon's: connections and their timeouts go on while scrapes do not.
#[derive(Debug)]
struct Network(Handle, Option<Runtime>);

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(runtime) = self.1.take() {
            // A collector that hangs must not delay the end of the daemon.
            runtime.shutdown_background();
        }
    }
}

impl Pusher {
    pub(crate) fn start(
        push: OtlpConfig,
        view: View,
        counts: Arc<PushStats>,
        ticker: Ticker,
    ) -> Result<Self, PushError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("otlp").enable_all().build()?;
        let endpoint = push.shown_endpoint();
        let network = Network(runtime.handle().clone(), Some(runtime));
        let exporter = exporter(&push, &network.0, counts)?;
        let reader = ForgettingReader::new(ManualReader::default());
        let provider = SdkMeterProvider::builder()
            .with_reader(reader.clone())
            .with_resource(resource(&push))
            // The SDK would add up the points beyond its own limit.
            .with_view(|_: &Instrument| Stream::builder().with_cardinality_limit(MAX_POINTS).build().ok())
            .build();
        let scope = InstrumentationScope::builder(NAME).with_version(VERSION).build();
        let chunk = NextChunk::default();
        let next = Arc::clone(&chunk);
        let instruments = otel::all(&push.prefix, push.naming);
        register(&provider.meter_with_scope(scope), instruments, move || {
            next.lock().unwrap_or_else(PoisonError::into_inner).take()
        });
        let (interval, timeout) = (push.interval, push.timeout_of_all);
        let pushes =
            PushLoop { ticker, view, chunk, reader, _provider: provider, exporter, interval, timeout };
        let (leave, asked) = mpsc::channel();
        thread::Builder::new().name("push".to_owned()).spawn(move || pushes.run(&asked))?;
        let every = humantime::format_duration(push.interval);
        tracing::info!("pushing to {endpoint} every {every}");
        Ok(Self { leave, _network: network })
    }

    /// PushLoop once more.
    pub(crate) async fn leave(self) {
        let (told, arrived) = oneshot::channel();
        let is_asked = self.leave.send(told).is_ok();
        if !is_asked || !matches!(tokio::time::timeout(LAST, arrived).await, Ok(Ok(true))) {
            tracing::warn!("otlp: the last push did not arrive");
        }
    }
}

fn exporter(
    push: &OtlpConfig,
    runtime: &Handle,
    counts: Arc<PushStats>,
) -> Result<ReportingExporter, PushError> {
    // A gRPC channel is made of tasks.
    let _entered = runtime.enter();
    let failure = LastFailure::default();
    let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
    let inner = match push.protocol {
        Protocol::Grpc => {
            let builder = builder
                .with_tonic()
                .with_endpoint(&push.endpoint)
                .with_timeout(push.timeout)
                .with_metadata(metadata(&push.headers));
            let builder = if push.gzip { builder.with_compression(Compression::Gzip) } else { builder };
            let is_tls = push.endpoint.starts_with("https://");
            if is_tls { builder.with_tls_config(push.tls.for_grpc()?) } else { builder }.build()?
        }
        Protocol::HttpProtobuf => {
            let builder = builder
                .with_http()
                .with_protocol(OtlpProtocol::HttpBinary)
                .with_endpoint(&push.endpoint)
                .with_timeout(push.timeout)
                // It decodes them, as those of a variable.
                .with_headers(push.headers.iter().map(|(k, v)| (k.clone(), v.replace('%', "%25"))).collect())
                .with_http_client(Client::new(push.tls.for_http()?, push.timeout, failure.clone()));
            if push.gzip { builder.with_compression(Compression::Gzip) } else { builder }.build()?
        }
    };
    let (endpoint, runtime) = (push.shown_endpoint(), runtime.clone());
    Ok(ReportingExporter { inner, endpoint, runtime, counts, failure, fails: AtomicBool::new(false) })
}

/// The names and values were checked with the configuration.
fn metadata(headers: &BTreeMap<String, String>) -> MetadataMap {
    let header = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
    MetadataMap::from_headers(headers.iter().filter_map(header).collect())
}

/// Configured attributes override those of the host.
fn resource(push: &OtlpConfig) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let known = [
        ("service.name", NAME.to_owned()),
        ("service.version", VERSION.to_owned()),
        // The same after a restart: or all series would be new ones.
        ("service.instance.id", format!("{host}:{}", push.port)),
        ("host.name", host),
    ];
    let known = known.map(|(key, value)| KeyValue::new(key, value));
    let given = push.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder().with_attributes(known).with_attributes(given).build()
}
