//! Empty or malformed files of a process cost only their own numbers.

use std::fs;

use vm_metrics_testkit::metrics_text::Metrics;

use crate::fixture::Fixture;

const WEB: (&str, &str) = ("instance_name", "web");

/// A file of the process, its reader, and one of its metrics.
const FILES: &[(&str, &str, &str)] = &[
    ("stat", "proc_stat", "vm_cpu_seconds_total"),
    ("statm", "proc_statm", "vm_memory_rss_bytes"),
    ("status", "proc_status", "vm_memory_anon_bytes"),
    ("io", "proc_io", "vm_disk_read_bytes_total"),
    ("task/4243/schedstat", "proc_threads", "vm_cpu_wait_seconds_total"),
];

/// Returns the metrics of the VM `web` after the first tick, with this content in one file.
fn with(file: &str, content: &str) -> Metrics {
    let host = Fixture::copy_of("mixed");
    // A scan would need its `stat`, so the configuration names the process.
    let vm = "[sources.proc_scan]\nenabled = false\n[[sources.static_list.vms]]\nid = \"a\"\nname = \"web\"\npid = 4242\n\
              hypervisor = \"qemu\"\n[[sources.static_list.vms]]\nid = \"b\"\npid = 4300\nhypervisor = \"firecracker\"\n";
    fs::write(&host.config, fs::read_to_string(&host.config).unwrap() + vm).unwrap();
    fs::write(host.proc().join("4242").join(file), content).unwrap();
    host.serve().metrics().unwrap()
}

#[test]
fn a_malformed_file_loses_only_its_numbers() {
    for (file, reader, metric) in FILES {
        for content in ["", "nonsense", "1 2", "-1 -2 -3 (x) -4\n"] {
            let metrics = with(file, content);
            for (_, other_reader, other) in FILES {
                let is_hit = reader == other_reader;
                let of_web = metrics.value(other, &[WEB]);
                assert_eq!(of_web.is_none(), is_hit, "{other} with {content:?} in {file}: {of_web:?}");
                let errors = metrics.value("vm_exporter_reader_errors_total", &[("reader", other_reader)]);
                assert_eq!(errors > Some(0.0), is_hit, "{other_reader} with {content:?} in {file}");
                assert!(metrics.value(other, &[("instance_id", "b")]).is_some(), "{other} of the other VM");
            }
            let state = [("component", *reader), ("state", "degraded")];
            assert_eq!(metrics.value("vm_exporter_component_health", &state), Some(1.0), "{metric}");
        }
    }
}

#[test]
fn an_unreadable_thread_leaves_the_other_vcpus() {
    let metrics = with("task/4251/schedstat", "nonsense");
    let seconds = |vcpu| metrics.value("vm_vcpu_seconds_total", &[WEB, ("vcpu", vcpu)]);
    assert_eq!(["0", "1", "2"].map(seconds), [Some(50.123456), None, Some(20.0)]);
}

#[test]
fn a_zombie_is_not_published_as_zero() {
    let zombie = "Name:\tqemu\nState:\tZ (zombie)\nThreads:\t1\n";
    assert_eq!(with("status", zombie).value("vm_memory_anon_bytes", &[WEB]), None);
    let metrics = with("statm", "0 0 0 0 0 0 0\n");
    assert_eq!(metrics.value("vm_memory_rss_bytes", &[WEB]), None);
    assert_eq!(metrics.value("vm_memory_vms_bytes", &[WEB]), None);
}

#[test]
fn without_scheduler_statistics_no_wait_is_published() {
    let host = Fixture::copy_of("mixed");
    for thread in fs::read_dir(host.proc().join("4300/task")).unwrap() {
        fs::write(thread.unwrap().path().join("schedstat"), "0 0 0\n").unwrap();
    }
    let metrics = host.serve().metrics().unwrap();
    let firecracker = ("instance_id", "fc-1");
    assert!(metrics.value("vm_cpu_seconds_total", &[firecracker]).is_some());
    assert_eq!(metrics.value("vm_cpu_wait_seconds_total", &[firecracker]), None);
    assert_eq!(metrics.value("vm_vcpu_seconds_total", &[firecracker]), None);
}
