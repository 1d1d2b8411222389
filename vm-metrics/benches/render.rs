//! What rendering `/metrics` costs per VM: `cargo bench -p vm-metrics --bench render`. Compare the ratios; the times are
//! those of this machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench says what it found, and panics when it cannot"
)]

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, ProtobufEncoder, TextEncoder};
use protobuf::CodedInputStream;
use vm_metrics::{
    AttachMode, DirectionStats, EbpfStats, Format, FrameCounts, Hypervisor, Lifecycle, MissedTicks, NicSince,
    NicSource, NicStats, ProcessStats, Snapshot, Traffic, VcpuStats, VmSince, VmStats, render,
};

const VMS: u64 = 1000;
const ROUNDS: usize = 15;

fn main() {
    let snapshot = snapshot();
    let messages = messages(&render("vm", &snapshot, Format::Protobuf));
    println!("{VMS} VMs of one NIC and two vCPUs, per VM");
    for format in Format::ALL {
        let body = render("vm", &snapshot, format);
        let encode = || {
            let mut body = Vec::new();
            match format {
                Format::Text => TextEncoder::new().encode(&messages, &mut body),
                Format::Protobuf => ProtobufEncoder::new().encode(&messages, &mut body),
            }
            .unwrap();
            body
        };
        let mut times = [Duration::MAX; 3];
        // Side by side, as other work on the machine changes.
        for _ in 0..ROUNDS {
            let rendering = time(|| render("vm", &snapshot, format));
            let round = [rendering, time(encode), time(|| body.clone())];
            times = std::array::from_fn(|at| times[at].min(round[at]));
        }
        let [rendering, encoding, copying] = times.map(|time| time.as_secs_f64() * 1e6 / VMS as f64);
        let series: usize = messages.iter().map(|family| family.get_metric().len()).sum();
        println!(
            "{format:?}: {:.1} series, {} bytes: {rendering:.1} µs = {:.0} ns a sample = 1/{:.1} of the crate's encoder \
             alone ({encoding:.1} µs) = {:.0} × a copy of the bytes",
            series as f64 / VMS as f64,
            body.len() as u64 / VMS,
            rendering * 1e3 * VMS as f64 / series as f64,
            encoding / rendering,
            rendering / copying,
        );
        for level in [1, 4] {
            let took = (0..ROUNDS / 5).map(|_| time(|| gzip(&body, level))).min().unwrap();
            let (time, length) = (took.as_secs_f64() * 1e6 / VMS as f64, gzip(&body, level).len() as u64);
            println!("  gzip level {level}: {time:.1} µs, {} bytes", length / VMS);
        }
    }
}

fn gzip(body: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn time<T>(work: impl Fn() -> T) -> Duration {
    let began = Instant::now();
    black_box(work());
    began.elapsed()
}

/// The rendered families, as the crate's encoders take them.
fn messages(body: &[u8]) -> Vec<MetricFamily> {
    let mut stream = CodedInputStream::from_bytes(body);
    let mut families = Vec::new();
    while !stream.eof().unwrap() {
        families.push(stream.read_message().unwrap());
    }
    families
}

/// What a daemon with the default readers knows of its VMs.
fn snapshot() -> Snapshot {
    let now = SystemTime::now();
    Snapshot {
        tick: 1,
        taken: Instant::now(),
        taken_at: now,
        counting_since: now,
        tick_duration: Duration::from_millis(5),
        ticks_duration: Duration::from_millis(5),
        missed: MissedTicks::default(),
        vms: (1..=VMS).map(vm).collect(),
        lifecycle: Lifecycle::default(),
        components: Vec::new(),
        overuse: Vec::new(),
    }
}

fn vm(number: u64) -> VmStats {
    let count = number * 7_654_321;
    let since = Some(1_768_402_432.25 + number as f64);
    let vcpu = |vcpu: u32| VcpuStats {
        vcpu,
        thread: 1000 + vcpu,
        cpu_usec: count * u64::from(vcpu + 1),
        wait_usec: count / 10,
        since,
    };
    VmStats {
        instance_id: format!("{:08x}-0000-4000-8000-{number:012x}", number.wrapping_mul(2_654_435_761)),
        instance_name: format!("guest-{number}"),
        hypervisor: Hypervisor::CloudHypervisor,
        hypervisor_pid: Some(100_000 + number as u32),
        running: true,
        start_time: since,
        process: ProcessStats {
            cpu_usec: Some(count * 3),
            cpu_wait_usec: Some(count / 5),
            context_switches: Some(count),
            minor_page_faults: Some(count / 3),
            major_page_faults: Some(number),
            threads: Some(6),
            open_files: Some(40),
            memory_rss_bytes: Some(number << 20),
            memory_vms_bytes: Some(number << 21),
            memory_anon_bytes: Some(number << 19),
            memory_file_bytes: Some(number << 12),
            memory_shmem_bytes: Some(number << 18),
            memory_hugetlb_bytes: Some(0),
            memory_swap_bytes: Some(0),
            disk_read_bytes: Some(count),
            disk_write_bytes: Some(count * 2),
            disk_cancelled_write_bytes: Some(0),
            ..ProcessStats::default()
        },
        vcpus: [0, 1].map(vcpu).into(),
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(2 << 30),
        nics: vec![nic(number, count)],
        since: VmSince { process: since, cpu_wait: since },
        ..VmStats::default()
    }
}

fn nic(number: u64, count: u64) -> NicStats {
    let frames = |packets: u64| FrameCounts {
        bytes: Some(packets * 1400),
        packets: Some(packets),
        dropped: Some(0),
        errors: Some(0),
    };
    let counted: DirectionStats =
        DirectionStats { packets: count, bytes: count * 1400, tcp: count, ..DirectionStats::default() };
    // All of them are on.
    let direction = counted.zip_with(counted, |count, _| count, |count, _| Some(count));
    let traffic = Some(Traffic { packets: count, bytes: count * 1400 });
    let since = Some(1_768_402_432.25 + number as f64);
    NicStats {
        device: format!("tap{number}"),
        ifindex: Some(number as u32),
        source: NicSource::Ebpf,
        attach: AttachMode::Tcx,
        start_time: since,
        rx: frames(count),
        tx: frames(count / 2),
        mismatch_bytes: Some(0),
        ebpf: Some(EbpfStats {
            rx: direction,
            tx: direction,
            offered: traffic,
            dropped_ring_full: traffic,
            dropped_filter: traffic,
            dropped_qdisc: traffic,
        }),
        rx_backlog_packets: Some(0),
        rx_backlog_bytes: Some(0),
        rx_dropped_by_device: Some(0),
        rx_gap_packets: Some(0),
        tx_gap_packets: Some(0),
        since: NicSince { device: since, ebpf: since },
        ..NicStats::default()
    }
}
