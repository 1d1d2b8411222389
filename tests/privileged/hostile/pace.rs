//! Whether a daemon goes on at its pace: ticks end, scrapes are answered, memory stays bounded.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

/// Resident memory that the daemon may have under any attack.
const MEMORY: f64 = (256 << 20) as f64;

/// How much longer the median tick may be than before the attack. Without budgets it is thousands of times longer.
const SLOWER: f64 = 150.0;

/// The pace of a daemon that nobody attacks.
pub(super) struct Pace {
    median: f64,
}

impl Pace {
    /// To be measured before the attack.
    pub(super) fn of(daemon: &Daemon) -> Self {
        // The first ticks load the programs.
        ticks(daemon, 3, || ());
        Self { median: median(ticks(daemon, 15, || ())) }
    }

    /// So many more ticks end, and `meanwhile` is called after each scrape between them.
    pub(super) fn assert_kept(&self, daemon: &Daemon, count: usize, meanwhile: impl FnMut()) {
        let under_attack = median(ticks(daemon, count, meanwhile));
        let ratio = under_attack / self.median;
        let (calm, ratio_allowed) = (self.median, SLOWER);
        assert!(
            ratio <= ratio_allowed,
            "the median tick took {calm} s before, {under_attack} s under attack"
        );
    }
}

/// The durations of so many ticks. Each has to end soon after the one before, and each scrape has to be answered.
fn ticks(daemon: &Daemon, count: usize, mut meanwhile: impl FnMut()) -> Vec<f64> {
    let mut durations = Vec::new();
    let mut last = ended(&daemon.metrics().unwrap());
    while durations.len() < count {
        meanwhile();
        let next = daemon.wait_for(SOON, "the next tick", |metrics| {
            let memory = metrics.value("process_resident_memory_bytes", &[]).unwrap();
            assert!(memory < MEMORY, "{memory} bytes of memory");
            (ended(metrics) > last).then(|| metrics.clone())
        });
        let metrics = next.unwrap();
        last = ended(&metrics);
        durations.push(metrics.value("vm_metrics_tick_duration_seconds", &[]).unwrap());
    }
    durations
}

fn ended(metrics: &Metrics) -> f64 {
    metrics.value("vm_metrics_ticks_total", &[]).unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
