//! Measures whether the daemon keeps its pace under attack.

use std::thread;
use std::time::Instant;

use vm_metrics::read_proc_stat;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

use crate::isolation::figures;

/// Limit of resident memory under any attack.
const MEMORY: f64 = (256 << 20) as f64;

/// Permitted factor of CPU time per tick, compared with the time before the attack.
const MORE_WORK: f64 = 60.0;

/// Permitted factor of the median tick. Ticks wait for a busy CPU, so this only detects hanging ones.
const MORE_TIME: f64 = 1000.0;

/// The pace of a daemon without an attack.
pub(super) struct Pace {
    calm: Work,
}

/// The cost of one tick and of one scrape.
#[derive(Debug)]
struct Work {
    median_seconds: f64,
    worst_seconds: f64,
    cpu_seconds: f64,
    worst_scrape_seconds: f64,
    memory_bytes: f64,
}

impl Pace {
    /// Measures the pace. Call it before the attack.
    pub(super) fn of(daemon: &Daemon) -> Self {
        // The first ticks load the programs.
        measure(daemon, 3, || ());
        Self { calm: measure(daemon, 20, || ()) }
    }

    /// Waits for `count` more ticks, and calls `meanwhile` after each scrape between them.
    pub(super) fn assert_kept(&self, daemon: &Daemon, count: usize, meanwhile: impl FnMut()) {
        let (calm, attacked) = (&self.calm, measure(daemon, count, meanwhile));
        attacked.say();
        // The kernel's clock of CPU time is coarse.
        let work = calm.cpu_seconds.max(calm.median_seconds);
        let kept = attacked.cpu_seconds < MORE_WORK * work
            && attacked.median_seconds < MORE_TIME * calm.median_seconds;
        assert!(kept, "{calm:?} before, {attacked:?} under attack");
    }
}

impl Work {
    fn say(&self) {
        let test = thread::current().name().unwrap_or_default().to_owned();
        let [median, worst, cpu, scrape] =
            [self.median_seconds, self.worst_seconds, self.cpu_seconds, self.worst_scrape_seconds]
                .map(|seconds| format!("{:.1} ms", seconds * 1e3));
        let memory = self.memory_bytes / f64::from(1 << 20);
        figures(&format!(
            "{test}: tick {median} at the median, {worst} at worst, {cpu} of CPU; scrape {scrape} at worst; \
             {memory:.0} MiB"
        ));
    }
}

/// Measures `count` ticks. Each must end soon after the one before, and each scrape must get a response.
fn measure(daemon: &Daemon, count: usize, mut meanwhile: impl FnMut()) -> Work {
    let (mut durations, mut worst_scrape_seconds, mut memory_bytes) = (Vec::new(), 0.0_f64, 0.0_f64);
    let first = daemon.metrics().unwrap();
    let cpu_before = cpu_seconds(daemon);
    let mut last = first.clone();
    while durations.len() < count {
        meanwhile();
        let next = daemon.wait_for(SOON, "the next tick", |metrics| {
            let memory = own(metrics, "process_resident_memory_bytes");
            assert!(memory < MEMORY, "{memory} bytes of memory");
            memory_bytes = memory_bytes.max(memory);
            let (open, most) = (own(metrics, "process_open_fds"), own(metrics, "process_max_fds"));
            assert!(open < 0.9 * most, "{open} of {most} descriptors are open");
            (ended(metrics) > ended(&last)).then(|| metrics.clone())
        });
        let next = next.unwrap();
        let took = |metrics: &Metrics| own(metrics, "vm_exporter_tick_duration_seconds_total");
        durations.push((took(&next) - took(&last)) / (ended(&next) - ended(&last)));
        last = next;
        let asked = Instant::now();
        daemon.metrics().unwrap();
        worst_scrape_seconds = worst_scrape_seconds.max(asked.elapsed().as_secs_f64());
    }
    let cpu_seconds = (cpu_seconds(daemon) - cpu_before) / (ended(&last) - ended(&first));
    durations.sort_by(f64::total_cmp);
    let (median_seconds, worst_seconds) = (durations[durations.len() / 2], durations[durations.len() - 1]);
    Work { median_seconds, worst_seconds, cpu_seconds, worst_scrape_seconds, memory_bytes }
}

/// Reads procfs, because the metric has whole seconds.
fn cpu_seconds(daemon: &Daemon) -> f64 {
    read_proc_stat(daemon.pid()).unwrap() as f64 / 1e6
}

fn ended(metrics: &Metrics) -> f64 {
    own(metrics, "vm_exporter_ticks_total")
}

fn own(metrics: &Metrics, name: &str) -> f64 {
    metrics.value(name, &[]).unwrap_or_else(|| panic!("no {name}: are the numbers withheld?"))
}
