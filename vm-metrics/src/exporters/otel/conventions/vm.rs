//! Instruments of VMs, their vCPUs and their network interfaces.

use super::Metrics::{One, Several};
use super::labels::DIRECTION;
use super::{Convention, Fixed, counter, gauge, up_down};

pub(super) const OF_VM: &[Convention] = &[
    gauge("info", "", One("info")),
    up_down("running", "{vm}", One("running")),
    up_down("status.state", "{vm}", One("state")),
    gauge("start_time", "s", One("start_time_seconds")),
    counter("cpu.time", "s", One("cpu_seconds_total")),
    counter("cpu.wait_time", "s", One("cpu_wait_seconds_total")),
    up_down("cpu.logical.count", "{cpu}", One("allocated_vcpus")),
    counter("vcpu.time", "s", One("vcpu_seconds_total")),
    counter("vcpu.wait_time", "s", One("vcpu_wait_seconds_total")),
    up_down("memory.usage", "By", One("memory_rss_bytes")),
    up_down("memory.virtual", "By", One("memory_vms_bytes")),
    up_down(
        "memory.resident",
        "By",
        Several(
            "Resident memory of the hypervisor process by what is behind it; together it is memory.usage.",
            &[
                ("memory_anon_bytes", (MEMORY_TYPE, "anon")),
                ("memory_file_bytes", (MEMORY_TYPE, "file")),
                ("memory_shmem_bytes", (MEMORY_TYPE, "shmem")),
            ],
        ),
    ),
    up_down("memory.hugetlb", "By", One("memory_hugetlb_bytes")),
    up_down("memory.proportional", "By", One("memory_pss_bytes")),
    up_down("memory.private", "By", One("memory_private_bytes")),
    up_down("memory.limit", "By", One("allocated_memory_bytes")),
    up_down("memory.balloon.limit", "By", One("actual_memory_bytes")),
    up_down("paging.usage", "By", One("memory_swap_bytes")),
    counter(
        "disk.io",
        "By",
        Several(
            "Bytes that the hypervisor process had storage read or write, without what the page cache had.",
            &[
                ("disk_read_bytes_total", ("disk.io.direction", "read")),
                ("disk_write_bytes_total", ("disk.io.direction", "write")),
            ],
        ),
    ),
    counter("disk.cancelled_write", "By", One("disk_cancelled_write_bytes_total")),
];

pub(super) const OF_NETWORK: &[Convention] = &[
    counter(
        "network.io",
        "By",
        Several(
            "Bytes the guest received and sent.",
            &[("network_rx_bytes_total", RECEIVE), ("network_tx_bytes_total", TRANSMIT)],
        ),
    ),
    counter(
        "network.packet.count",
        "{packet}",
        Several(
            "Packets the guest received and sent; a GSO frame is one.",
            &[("network_rx_packets_total", RECEIVE), ("network_tx_packets_total", TRANSMIT)],
        ),
    ),
    counter(
        "network.packet.dropped",
        "{packet}",
        Several(
            "Packets for the guest that were dropped, with the reason, and packets of the guest that the host refused.",
            &[("network_rx_dropped_packets_total", RECEIVE), ("network_tx_dropped_packets_total", TRANSMIT)],
        ),
    ),
    counter(
        "network.dropped.io",
        "By",
        Several(
            "Bytes for the guest that were dropped since the attach, with the reason.",
            &[("network_rx_dropped_bytes_total", RECEIVE)],
        ),
    ),
    counter(
        "network.errors",
        "{error}",
        Several(
            "Errors of the TAP on the way to the guest and from it.",
            &[("network_rx_errors_total", RECEIVE), ("network_tx_errors_total", TRANSMIT)],
        ),
    ),
    up_down("network.backlog.packet.count", "{packet}", One("network_rx_backlog_packets")),
    up_down("network.backlog.size", "By", One("network_rx_backlog_bytes")),
    counter("network.offered.io", "By", One("network_rx_offered_bytes_total")),
    counter("network.offered.packet.count", "{packet}", One("network_rx_offered_packets_total")),
    counter(
        "network.wire.io",
        "By",
        Several(
            "Bytes since the attach as the wire would carry them: every segment with its headers. Received is offered.",
            &[("network_rx_wire_bytes_total", RECEIVE), ("network_tx_wire_bytes_total", TRANSMIT)],
        ),
    ),
    counter(
        "network.wire.packet.count",
        "{packet}",
        Several(
            "Packets since the attach as the wire would carry them: a GSO frame counts as its segments. Received is offered.",
            &[("network_rx_wire_packets_total", RECEIVE), ("network_tx_wire_packets_total", TRANSMIT)],
        ),
    ),
    counter("network.gso.packet.count", "{packet}", One("network_gso_packets_total")),
    counter("network.type.packet.count", "{packet}", One("network_packets_by_protocol_total")),
    counter("network.transport.packet.count", "{packet}", One("network_packets_by_transport_total")),
    counter("network.destination.packet.count", "{packet}", One("network_packets_by_destination_total")),
    counter(
        "network.gap.packet.count",
        "{packet}",
        Several(
            "Packets that the eBPF programs did not see.",
            &[("network_rx_gap_packets_total", RECEIVE), ("network_tx_gap_packets_total", TRANSMIT)],
        ),
    ),
    gauge("network.start_time", "s", One("network_start_time_seconds")),
    gauge("network.source.info", "", One("network_source_info")),
    gauge("network.unmonitored.info", "", One("network_unmonitored_info")),
];

const MEMORY_TYPE: &str = "vm.memory.type";

const RECEIVE: Fixed = (DIRECTION, "receive");
const TRANSMIT: Fixed = (DIRECTION, "transmit");
