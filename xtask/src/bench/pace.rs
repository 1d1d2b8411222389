//! The daemon at ten ticks a second: its share of a core, and its punctuality.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Plan, contestant::Contestant, figures::Figures};

const SECOND: Duration = Duration::from_secs(1);

/// A tick is seen several times, so that a slow answer does not count.
const LOOKS_PER_TICK: u32 = 4;

pub fn measure(figures: &mut Figures, plan: &Plan, daemon: &Contestant, interval: Duration) -> Result<()> {
    let late = daemon.health()?.ticks_late;
    for _ in 0..plan.rounds {
        let share = share_of_a_core(daemon, plan.window)?;
        figures.add("pace.core_percent", share * 100.0);
        figures.add("pace.second_per_vm", share * 1e6 / f64::from(plan.vms));
    }
    figures.add("pace.late_ticks", (daemon.health()?.ticks_late - late) as f64);
    figures.add("pace.lateness_p99_ms", lateness(daemon, plan.window, interval)?.as_secs_f64() * 1e3);
    Ok(())
}

/// Scrapes once a second.
fn share_of_a_core(daemon: &Contestant, window: Duration) -> Result<f64> {
    let (start, used) = (Instant::now(), daemon.cpu_time()?);
    while start.elapsed() < window {
        let scraped = Instant::now();
        daemon.scrape(&[])?;
        thread::sleep(SECOND.saturating_sub(scraped.elapsed()));
    }
    Ok((daemon.cpu_time()? - used).div_duration_f64(start.elapsed()))
}

/// Returns the time by which the begins of 99 of 100 ticks come at most too late after the tick before.
fn lateness(daemon: &Contestant, window: Duration, interval: Duration) -> Result<Duration> {
    let start = Instant::now();
    let mut begins: BTreeMap<u64, Duration> = BTreeMap::new();
    while start.elapsed() < window {
        // The answer is not older than the request, so the tick began at this time or later.
        let asked = start.elapsed();
        let health = daemon.health()?;
        let begin = begins.entry(health.tick).or_default();
        *begin = asked.saturating_sub(health.since_begin()).max(*begin);
        thread::sleep(interval / LOOKS_PER_TICK);
    }
    let pairs = begins.iter().zip(begins.iter().skip(1)).filter(|((one, _), (next, _))| *one + 1 == **next);
    Ok(p99(pairs.map(|((_, begin), (_, next))| next.saturating_sub(*begin + interval)).collect()))
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_is_above() {
        let times = |count: u64| (1..=count).rev().map(Duration::from_millis).collect();
        assert_eq!(p99(times(100)), Duration::from_millis(99));
        assert_eq!(p99(times(10)), Duration::from_millis(10));
        assert_eq!(p99(Vec::new()), Duration::ZERO);
    }
}
