//! A snapshot for the tests of all formats.

use std::time::{Duration, Instant, SystemTime};

use vm_metrics_common::Splits;

use crate::model::*;

fn cgroup_stats() -> CgroupStats {
    let gauges = CgroupStats { memory_bytes: Some(1), memory_limit_bytes: Some(1), ..CgroupStats::default() };
    gauges.with_counters([Some(1); 10])
}

/// A snapshot in which everything is measured.
pub(crate) fn full() -> Snapshot {
    let counts = FrameCounts { bytes: Some(1), packets: Some(1), dropped: Some(1), errors: Some(1) };
    let nic = NicStats {
        found: None,
        device: "tap0".into(),
        netns: Some(4_026_531_840),
        ifindex: Some(3),
        kind: NicKind::Tap,
        source: NicSource::Ebpf,
        attach: AttachMode::Tcx,
        start_time: Some(1.0),
        rx: counts,
        tx: counts,
        mismatch_bytes: Some(0),
        ebpf: Some(EbpfStats {
            offered: Some(Traffic::default()),
            dropped_ring_full: Some(Traffic::default()),
            dropped_filter: Some(Traffic::default()),
            dropped_qdisc: Some(Traffic::default()),
            ..EbpfStats::<u64>::default().known(Splits::ALL)
        }),
        rx_backlog_packets: Some(0),
        rx_backlog_bytes: Some(0),
        rx_dropped_by_device: Some(0),
        rx_gap_packets: Some(0),
        tx_gap_packets: Some(0),
        earlier: None,
        gone: false,
        since: NicSince { device: Some(1.5), ebpf: Some(2.5) },
    };
    let vm = VmStats {
        instance_id: "a".into(),
        instance_name: "b".into(),
        running: true,
        start_time: Some(1.0),
        process: super::fields::process_stats(Some(1)),
        vcpus: [0, 1].map(|vcpu| VcpuStats { vcpu, since: Some(1.0), ..VcpuStats::default() }).into(),
        cgroup: Some(cgroup_stats()),
        allocated_vcpus: Some(1),
        allocated_memory_bytes: Some(1),
        actual_memory_bytes: Some(1),
        state: Some(VmState::Running),
        project: Some("p".into()),
        namespace: Some("n".into()),
        pod_uid: Some("u".into()),
        tags: [("team".to_owned(), "red".to_owned())].into(),
        network_limit_rx_bytes_per_second: Some(1),
        network_limit_tx_bytes_per_second: Some(1),
        restart_attempts: Some(1),
        nics: vec![nic],
        unmonitored: vec![UnmonitoredNic { kind: UnmonitoredKind::User, name: "n0".into() }],
        since: VmSince { process: Some(1.0), cpu_wait: Some(1.0) },
        ..VmStats::default()
    };
    let component = |kind, name| ComponentRun {
        kind,
        name,
        health: ComponentHealth::healthy(),
        duration: Some(Duration::from_millis(1)),
        items: 1,
        errors: 0,
        absent: 0,
        lost: Some(0),
        pinned: Some(false),
        overuse: vec![Overuse { uid: Some(1000), resource: "threads", count: 1 }],
        totals: ComponentTotals::default(),
    };
    Snapshot {
        tick: 1,
        taken: Instant::now(),
        taken_at: SystemTime::now(),
        counting_since: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        tick_duration: Duration::from_millis(1),
        ticks_duration: Duration::from_millis(1),
        missed: MissedTicks::default(),
        vms: vec![vm],
        lifecycle: Lifecycle::default(),
        components: vec![
            component(ComponentKind::Source, "proc_scan"),
            component(ComponentKind::Reader, "proc_stat"),
        ],
        overuse: vec![Overuse { uid: Some(1000), resource: "departed", count: 1 }],
    }
}
