//! Events of devices and processes trigger ticks before the interval ends.

use std::time::{Duration, Instant};

use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::{NetNs, enter_of};
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, scaled};

use super::host::Host;
use crate::isolation::isolated;

const HOURLY: &str = "interval = \"1h\"\n";

/// A second TAP of a VM appears in a namespace that the first TAP already put under watch.
#[test]
fn a_new_foreign_tap_is_counted_at_once() {
    isolated("elsewhere::between_ticks::a_new_foreign_tap_is_counted_at_once", || {
        let host = Host::new();
        let namespace = NetNs::enter().unwrap();
        let first =
            Tap::create_up("vmt0", TapOptions { multi_queue: true, ..TapOptions::default() }).unwrap();
        let second = Tap::create("vmt1", TapOptions { persist: true, ..TapOptions::default() }).unwrap();
        let mut vmm = host.shell.start("a", &first);
        let pid = vmm.pid();
        drop(namespace);
        let daemon = host.daemon(HOURLY);
        let counted = |device: &'static str| {
            move |metrics: &Metrics| {
                metrics.value("vm_network_source_info", &[("device", device), ("source", "ebpf")])
            }
        };
        daemon.wait_for(SOON, "the first TAP", counted("vmt0")).unwrap();
        // Another VM has the second TAP, in the watched namespace.
        let inside = enter_of(pid).unwrap();
        let _other = host.shell.start("b", &second);
        second.link().up().unwrap();
        drop(inside);
        let began = Instant::now();
        daemon.wait_for(SOON, "the second TAP, an hour before the next tick", counted("vmt1")).unwrap();
        eprintln!("counted after {:?}", began.elapsed());
        vmm.kill().unwrap();
    });
}

/// The VM lives for 300 ms on a quiet machine, and sends a megabyte.
#[test]
fn a_vm_between_two_ticks_is_counted() {
    isolated("elsewhere::between_ticks::a_vm_between_two_ticks_is_counted", || {
        let host = Host::new();
        let daemon = host.daemon(HOURLY);
        let frame = Frame::from_guest().udp4(1000);
        let frames = 1_000_000_u64.div_ceil(frame.len() as u64);
        for id in ["a", "b"] {
            let tap = Tap::create_up("vmt0", TapOptions::default()).unwrap();
            let mut vmm = host.shell.start(id, &tap);
            let born = Instant::now();
            for _ in 0..frames {
                tap.write_frame(&frame).unwrap();
            }
            std::thread::sleep(scaled(Duration::from_millis(300)).saturating_sub(born.elapsed()));
            drop(tap);
            vmm.kill().unwrap();
            drop(vmm);
            let ended = |metrics: &Metrics| {
                let of = [("instance_id", id)];
                let bytes = metrics.value("vm_network_tx_bytes_total", &of)?;
                let up = metrics.value("vm_running", &of)?;
                (up == 0.0 && bytes == (frames * frame.len() as u64) as f64).then_some(())
            };
            daemon.wait_for(SOON, "exactly its sent bytes, and its end", ended).unwrap();
        }
    });
}
