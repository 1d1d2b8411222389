//! The time of the program per packet, beside an empty program and a hash.

use anyhow::{Context, Result};
use vm_metrics_testkit::{
    bpf::Program,
    frames::{BROADCAST, Frame},
    link::Link,
};

use super::{Plan, contestant::Contestant, figures::Figures, fleet::Fleet};

/// The kernel's name of the program for frames from the guest.
const PROGRAM: &str = "tap_ingress";

const REPEAT: u32 = 500_000;
const PAYLOAD: usize = 1000;

/// Adds nanoseconds per packet. All numbers but that of the empty program are without it.
pub fn measure(figures: &mut Figures, plan: &Plan, daemon: &Contestant, fleet: &Fleet) -> Result<()> {
    let (_, tap) = fleet.pids_and_taps().next().context("a run without VMs")?;
    let ifindex = Link::named(tap).ifindex()?;
    let (empty, hash) = (Program::empty()?, Program::hash_by_ifindex(&[ifindex])?);
    let program = Program::of_process(daemon.pid(), PROGRAM)?;
    let ipv4 = Frame::from_guest().udp4(PAYLOAD);
    let frames = [
        ("ipv4", ipv4.clone()),
        ("ipv6", Frame::from_guest().tcp6(PAYLOAD)),
        ("arp", Frame::from_guest().to(BROADCAST).arp()),
        ("vlan", Frame::from_guest().vlan(7).tcp4(PAYLOAD)),
    ];
    let nanoseconds = |program: &Program, frame: &[u8]| {
        let time = program.time_of_runs(frame, ifindex, REPEAT)?;
        anyhow::Ok(time.as_secs_f64() * 1e9 / f64::from(REPEAT))
    };
    for _ in 0..plan.rounds {
        let nothing = nanoseconds(&empty, &ipv4)?;
        figures.add("packet.empty", nothing);
        figures.add("packet.hash", nanoseconds(&hash, &ipv4)? - nothing);
        for (key, frame) in &frames {
            figures.add(format!("packet.{key}"), nanoseconds(&program, frame)? - nothing);
        }
    }
    Ok(())
}
