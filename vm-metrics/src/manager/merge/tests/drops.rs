//! Drops of a device, with and without a reason of the tracepoint.

use vm_metrics_common::{DropCounts, Traffic};

use super::*;

/// A TAP that has dropped so many packets, and the tracepoint's count of them.
fn dropped(kind: NicKind, packets: u64, told: Option<u64>) -> Readings {
    let mut device = Tap { kind, ..device(3, 0, 0) };
    let stats = &mut device.reading.stats;
    (stats.rx_dropped, stats.tx_dropped) = (packets, packets);
    let mut batch = batch(&[("t", device)], &[]);
    if let Some(packets) = told {
        let counts = DropCounts { ring_full: Traffic { packets, bytes: 0 }, ..DropCounts::default() };
        batch.drops.insert(Nic::local("t"), counts);
    }
    batch
}

fn by_device(continuity: &mut Daemon, batch: &Readings) -> Option<u64> {
    present(&vm(&["t"]), batch, continuity)[0].nics[0].rx_dropped_by_device
}

fn awaited(mut batch: Readings) -> Readings {
    batch.awaits_drops = true;
    batch
}

/// The daemon before has left 40 in a map that this one reads in its second tick.
#[test]
fn late_reasons_count_once() {
    let mut continuity = Daemon::default();
    assert_eq!(by_device(&mut continuity, &awaited(dropped(NicKind::Tap, 100, None))), None);
    assert_eq!(by_device(&mut continuity, &dropped(NicKind::Tap, 100, Some(40))), Some(60));
}

#[test]
fn unexplained_drops_are_the_devices() {
    let batch = dropped(NicKind::Tap, 100, None);
    assert_eq!(by_device(&mut Daemon::default(), &batch), Some(100));
    let macvtap = dropped(NicKind::Macvtap, 100, None);
    let of_macvtap = by_device(&mut Daemon::default(), &macvtap);
    assert_eq!(by_device(&mut Daemon::default(), &awaited(macvtap)), of_macvtap, "no tracepoint counts it");
}
