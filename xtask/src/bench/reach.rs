//! What each figure should reach, and the ratios that CI compares.

use super::figures::Figures;

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    pub key: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    /// The figure to reach, for 1000 VMs on two CPUs; empty where there is none.
    pub reach: &'static str,
}

/// Two figures of one run. Machines differ in both alike, so that it has a limit on each.
#[derive(Debug)]
pub struct Ratio {
    pub name: &'static str,
    of: &'static str,
    /// `None`: the figure itself is no time.
    to: Option<&'static str>,
    /// The ratio to reach: this or less.
    pub reach: f64,
    /// The ratio of the present code in `--quick`, while it is beyond `reach`.
    today: Option<f64>,
}

/// A ratio may be so much worse than its limit in one run.
const TOLERANCE: f64 = 1.25;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reached,
    /// Beyond the figure to reach, and no worse than the present code.
    NotReached,
    TooLarge,
    NotMeasured,
    /// Has no figure to reach.
    Unguarded,
}

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("plain.four_opened", "plain reads: 4 files, opened each time", "µs/VM", ""),
    row("plain.all_opened", "plain reads: all 10 files, opened each time", "µs/VM", ""),
    row("plain.all_kept", "plain reads: all 10 files, kept open", "µs/VM", ""),
    row("tick_1hz.default", "a tick, once a second", "µs/VM", "≤ 5"),
    row("tick_1hz.task_iter", "a tick, once a second, with task_iter", "µs/VM", ""),
    row("tick_1hz.other", "a tick, once a second, of the other build", "µs/VM", ""),
    row("tick_10hz.default", "a tick, ten times a second", "µs/VM", "≤ 5"),
    row("tick_10hz.task_iter", "a tick, ten times a second, with task_iter", "µs/VM", ""),
    row("tick_10hz.other", "a tick, ten times a second, of the other build", "µs/VM", ""),
    row("pace.core_percent", "ten ticks and a scrape a second: share of a core", "%", "≤ 6"),
    row("pace.late_ticks", "late ticks meanwhile", "", "0"),
    row("pace.lateness_p99_ms", "lateness of 99 of 100 ticks", "ms", "< 10"),
    row("scrape_first.text", "first scrape after a tick, text", "µs/VM", "≤ 10"),
    row("scrape_first.protobuf", "first scrape after a tick, protobuf", "µs/VM", "≤ 15"),
    row("scrape_first.gzip", "first scrape after a tick, text with gzip", "µs/VM", ""),
    row("scrape_again.text", "a further scrape of the same tick, text", "µs/VM", ""),
    row("series_per_vm", "series of a VM: one NIC, two vCPUs", "", "≤ 30"),
    row("bytes_per_vm", "text of a VM", "bytes", ""),
    row("packet.empty", "a run of an empty program", "ns", ""),
    row("packet.hash", "a packet, counted in a hash by ifindex", "ns", ""),
    row("packet.ipv4", "a packet: IPv4", "ns", "≤ 10"),
    row("packet.ipv6", "a packet: IPv6", "ns", "≤ 13"),
    row("packet.arp", "a packet: ARP", "ns", "≤ 10"),
    row("packet.vlan", "a packet: VLAN", "ns", "≤ 13"),
    row("memory.resident_mib", "resident memory", "MiB", "≤ 48"),
    row("memory.peak_mib", "peak of it", "MiB", "≤ 64"),
    row("open_files", "open files", "", "≤ 2500"),
    row("counted_after.default", "from the start until all TAPs are counted", "s", "≤ 5"),
    row("growth.r2.tick", "growth of a tick with the VMs: R² of a line", "", "≥ 0.99"),
    row("growth.r2.memory", "growth of the memory with the VMs: R² of a line", "", "≥ 0.99"),
];

/// Each figure to reach became a ratio on a machine where plain reads of four files took 50 µs per VM.
#[rustfmt::skip]
pub const RATIOS: &[Ratio] = &[
    // 5 µs.
    ratio("a tick once a second / plain reads of 4 files", "tick_1hz.default", "plain.four_opened", 0.1, Some(4.0)),
    ratio("a tick ten times a second / plain reads of 4 files", "tick_10hz.default", "plain.four_opened", 0.1, Some(4.0)),
    unguarded("a tick once a second, with task_iter / without", "tick_1hz.task_iter", "tick_1hz.default"),
    ratio("a tick once a second / of the other build", "tick_1hz.default", "tick_1hz.other", 0.067, Some(1.0)),
    // 60 µs per VM are 6 % of a core for 1000 of them.
    ratio("ten ticks and a scrape / plain reads of 4 files", "pace.second_per_vm", "plain.four_opened", 1.2, Some(27.0)),
    // 10 and 15 µs.
    ratio("first scrape, text / plain reads of 4 files", "scrape_first.text", "plain.four_opened", 0.2, Some(0.33)),
    ratio("first scrape, protobuf / plain reads of 4 files", "scrape_first.protobuf", "plain.four_opened", 0.3, Some(0.36)),
    ratio("a further scrape / plain reads of 4 files", "scrape_again.text", "plain.four_opened", 0.1, Some(0.4)),
    // 10 and 13 ns, where the hash takes 38.
    ratio("a packet of IPv4 / counted in a hash", "packet.ipv4", "packet.hash", 0.26, None),
    ratio("a packet of IPv6 / counted in a hash", "packet.ipv6", "packet.hash", 0.34, None),
    ratio("a packet of ARP / counted in a hash", "packet.arp", "packet.hash", 0.26, None),
    ratio("a packet in a VLAN / counted in a hash", "packet.vlan", "packet.hash", 0.34, None),
    count("series of a VM", "series_per_vm", 30.0, None),
    count("open files of a VM", "open_files_per_vm", 2.5, Some(12.1)),
];

const fn row(key: &'static str, name: &'static str, unit: &'static str, reach: &'static str) -> Row {
    Row { key, name, unit, reach }
}

const fn ratio(
    name: &'static str,
    of: &'static str,
    to: &'static str,
    reach: f64,
    today: Option<f64>,
) -> Ratio {
    Ratio { name, of, to: Some(to), reach, today }
}

/// A ratio to know: the reader is on request, and most of its cost is that of other threads of the host.
const fn unguarded(name: &'static str, of: &'static str, to: &'static str) -> Ratio {
    ratio(name, of, to, f64::INFINITY, None)
}

const fn count(name: &'static str, of: &'static str, reach: f64, today: Option<f64>) -> Ratio {
    Ratio { name, of, to: None, reach, today }
}

impl Ratio {
    pub fn value(&self, figures: &Figures) -> Option<f64> {
        let to = self.to.map_or(Some(1.0), |to| figures.median(to));
        Some(figures.median(self.of)? / to?)
    }

    /// The value above which `--quick` fails.
    pub fn guard(&self) -> f64 {
        self.today.unwrap_or(self.reach) * TOLERANCE
    }

    pub fn verdict(&self, figures: &Figures) -> Verdict {
        match self.value(figures) {
            None => Verdict::NotMeasured,
            Some(_) if self.reach.is_infinite() => Verdict::Unguarded,
            Some(value) if value > self.guard() => Verdict::TooLarge,
            Some(value) if self.today.is_some() && value > self.reach => Verdict::NotReached,
            Some(_) => Verdict::Reached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(value: f64) -> [Verdict; 2] {
        let mut figures = Figures::default();
        figures.add("a", value * 8.0);
        figures.add("b", 8.0);
        [None, Some(4.0)].map(|today| ratio("a / b", "a", "b", 1.0, today).verdict(&figures))
    }

    #[test]
    fn the_guard_is_a_quarter_above_the_limit() {
        use Verdict::{NotReached, Reached, TooLarge, Unguarded};
        assert_eq!(verdicts(1.0), [Reached, Reached]);
        assert_eq!(verdicts(1.2), [Reached, NotReached]);
        assert_eq!(verdicts(1.3), [TooLarge, NotReached]);
        assert_eq!(verdicts(5.1), [TooLarge, TooLarge]);
        let mut figures = Figures::default();
        ["a", "b"].iter().zip([9000.0, 1.0]).for_each(|(key, value)| figures.add(*key, value));
        assert_eq!(unguarded("", "a", "b").verdict(&figures), Unguarded);
        assert_eq!(ratio("", "a", "b", 1.0, None).verdict(&Figures::default()), Verdict::NotMeasured);
    }

    /// A guard that is no longer needed would permit the code to get worse again.
    #[test]
    fn no_guard_is_below_its_reach() {
        assert!(RATIOS.iter().all(|ratio| ratio.today.is_none_or(|today| today > ratio.reach)));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> =
            ROWS.iter().map(|row| row.name).chain(RATIOS.iter().map(|ratio| ratio.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
