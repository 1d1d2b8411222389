//! Whether a daemon goes on at its pace: ticks end, scrapes are answered, memory stays bounded.

use vm_metrics::read_proc_stat;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

/// Resident memory that the daemon may have under any attack.
const MEMORY: f64 = (256 << 20) as f64;

/// How much more CPU time a tick may take than before the attack.
const MORE_WORK: f64 = 60.0;

/// How much longer the median tick may be. On a busy machine it waits for a CPU, so this is for ticks that hang.
const MORE_TIME: f64 = 1000.0;

/// The pace of a daemon that nobody attacks.
pub(super) struct Pace {
    calm: Work,
}

/// Of one tick.
#[derive(Debug)]
struct Work {
    median_seconds: f64,
    cpu_seconds: f64,
}

impl Pace {
    /// To be measured before the attack.
    pub(super) fn of(daemon: &Daemon) -> Self {
        // The first ticks load the programs.
        measure(daemon, 3, || ());
        Self { calm: measure(daemon, 20, || ()) }
    }

    /// So many more ticks end, and `meanwhile` is called after each scrape between them.
    pub(super) fn assert_kept(&self, daemon: &Daemon, count: usize, meanwhile: impl FnMut()) {
        let (calm, attacked) = (&self.calm, measure(daemon, count, meanwhile));
        // The kernel's clock of the CPU time is coarse.
        let work = calm.cpu_seconds.max(calm.median_seconds);
        let kept = attacked.cpu_seconds < MORE_WORK * work
            && attacked.median_seconds < MORE_TIME * calm.median_seconds;
        assert!(kept, "{calm:?} before, {attacked:?} under attack");
    }
}

/// Over so many ticks. Each has to end soon after the one before, and each scrape has to be answered.
fn measure(daemon: &Daemon, count: usize, mut meanwhile: impl FnMut()) -> Work {
    let mut durations = Vec::new();
    let first = daemon.metrics().unwrap();
    let cpu_before = cpu_seconds(daemon);
    let mut last = first.clone();
    while durations.len() < count {
        meanwhile();
        let next = daemon.wait_for(SOON, "the next tick", |metrics| {
            let memory = own(metrics, "process_resident_memory_bytes");
            assert!(memory < MEMORY, "{memory} bytes of memory");
            let (open, most) = (own(metrics, "process_open_fds"), own(metrics, "process_max_fds"));
            assert!(open < 0.9 * most, "{open} of {most} descriptors are open");
            (ended(metrics) > ended(&last)).then(|| metrics.clone())
        });
        last = next.unwrap();
        durations.push(own(&last, "vm_metrics_tick_duration_seconds"));
    }
    let cpu_seconds = (cpu_seconds(daemon) - cpu_before) / (ended(&last) - ended(&first));
    Work { median_seconds: median(durations), cpu_seconds }
}

/// Not of the metrics, which have whole seconds.
fn cpu_seconds(daemon: &Daemon) -> f64 {
    read_proc_stat(daemon.pid()).unwrap() as f64 / 1e6
}

fn ended(metrics: &Metrics) -> f64 {
    own(metrics, "vm_metrics_ticks_total")
}

fn own(metrics: &Metrics, name: &str) -> f64 {
    metrics.value(name, &[]).unwrap_or_else(|| panic!("no {name}: are the numbers withheld?"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
