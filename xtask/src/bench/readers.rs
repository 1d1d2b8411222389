//! The time of each reader and source per VM, as the daemon reports it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{contestant::Contestant, figures::Figures};

/// Adds microseconds per VM of each tick, as time of the wall clock. A request costs the daemon a little, so that no CPU time
/// is measured meanwhile.
pub fn measure(figures: &mut Figures, daemon: &Contestant, window: Duration, vms: u32) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < window {
        for component in daemon.next_tick()?.parts {
            if let Some(seconds) = component.duration_seconds {
                figures.add(format!("component.{}", component.name), seconds * 1e6 / f64::from(vms));
            }
        }
    }
    Ok(())
}
