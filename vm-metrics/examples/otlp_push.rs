//! A program that pushes the usage of its own VMs to an OpenTelemetry collector.
//!
//! `cargo run --example otlp_push` pushes once, by gRPC, to the collector of `OTEL_EXPORTER_OTLP_ENDPOINT`, which by default
//! is on this host, or to the one that is its argument. It pushes nine metrics, under the names of Go programs:
//! `hypeman_vm_cpu_seconds_total` and so on.

use std::error::Error;
use std::process;

use opentelemetry_otlp::{MetricExporter, WithExportConfig};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use vm_metrics::opentelemetry::metrics::MeterProvider;
use vm_metrics::otel::ForgettingReader;
use vm_metrics::{InstanceData, InstanceListerAdapter, Manager};

fn main() -> Result<(), Box<dyn Error>> {
    push(std::env::args().nth(1))?;
    println!("pushed");
    Ok(())
}

fn push(endpoint: Option<String>) -> Result<(), Box<dyn Error>> {
    // The exporter's connection is a task; the reader has a thread of its own, and waits there.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let exporter = MetricExporter::builder().with_tonic();
    let exporter = match endpoint {
        Some(endpoint) => exporter.with_endpoint(endpoint).build()?,
        None => exporter.build()?,
    };
    let reader = ForgettingReader::new(PeriodicReader::builder(exporter).build());
    let provider = SdkMeterProvider::builder().with_reader(reader).build();

    let manager = Manager::new();
    manager.set_instance_source(InstanceListerAdapter::new(|| Ok(list())));
    manager.set_vm_label_budget(500);
    manager.initialize_otel(Some(&provider.meter("my-orchestrator")));

    // One that stays would do its work here: the reader pushes once a minute, and at the end.
    Ok(provider.shutdown()?)
}

/// What an orchestrator has in its database.
fn list() -> Vec<InstanceData> {
    vec![InstanceData {
        id: "0123456789ab".to_owned(),
        name: "web".to_owned(),
        hypervisor_pid: Some(process::id()),
        network_enabled: false,
        allocated_vcpus: 2,
        allocated_memory_bytes: 64 << 20,
    }]
}

#[test]
fn it_pushes_metrics_named_as_in_go() {
    use vm_metrics_testkit::otlp::OtlpSink;
    use vm_metrics_testkit::wait::SOON;

    let sink = OtlpSink::start(&[]).unwrap();
    push(Some(format!("http://{}", sink.grpc()))).unwrap();
    let request = sink.wait_for_request(SOON).unwrap().to_string();
    for name in [
        "hypeman_vm_cpu_seconds_total",
        "hypeman_vm_allocated_vcpus",
        "hypeman_vm_metrics_instances_observed",
    ] {
        assert!(request.contains(&format!("\"{name}\"")), "{request}");
    }
    push(Some("http://localhost:1".to_owned())).unwrap_err();
}
