//! Splits each counter into the VM's own series and the series of the rest.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::members::Members;
use super::processes::Processes;
use super::{Family, OTHER, is_forgotten};
use crate::exporters::families::Sample;
use crate::exporters::metrics::labels::{DEVICE, ID, Label, NAME, NETNS};
use crate::exporters::metrics::{Kind, Number};

/// Labels that identify a VM or its interface.
const WHO: [Label; 4] = [ID, NAME, DEVICE, NETNS];

/// How many counters of one name are remembered after their VMs ended. Without a limit an hour of ten short VMs a second
/// would take a gigabyte.
const MAX_GONE: usize = 4000;

#[derive(Debug, Default)]
pub(super) struct Sums {
    counters: HashMap<&'static str, Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    /// By process and labels.
    counted: HashMap<Vec<String>, LastReading>,
    /// By id and labels, of VMs that are or were among the top.
    own: HashMap<Vec<String>, OwnSeries>,
    /// By the labels that are not [`WHO`]. Never falls.
    other: BTreeMap<Vec<String>, Number>,
}

/// The true counter at the last snapshot.
#[derive(Clone, Copy, Debug)]
struct LastReading {
    value: Number,
    inside: bool,
    seen: Instant,
}

/// The series of one VM.
#[derive(Clone, Copy, Debug)]
struct OwnSeries {
    value: Number,
    /// It has everything that was counted.
    whole: bool,
    seen: Instant,
}

impl Sums {
    /// `now` is when the numbers were taken; `None` repeats the last numbers.
    pub(super) fn fit(
        &mut self,
        family: &mut Family,
        members: &Members,
        processes: &Processes,
        now: Option<Instant>,
    ) {
        let metric = family.metric;
        let labels = metric.labels;
        let Some(id) = labels.iter().position(|label| *label == ID) else { return };
        let samples = std::mem::take(&mut family.samples);
        match metric.kind {
            Kind::Counter => {
                let counter = self.counters.entry(metric.name).or_default();
                for mut sample in samples {
                    let inside = members.contains(&sample.labels[id]);
                    let own = key(labels, &sample.labels);
                    let shown = match now {
                        Some(now) => {
                            let mut process = own.clone();
                            // A device counts by itself, whatever the process.
                            if !labels.contains(&DEVICE) {
                                process[id] = processes.name(&own[id]).to_owned();
                            }
                            let rest = rest(labels, &sample.labels);
                            counter.step(process, own, rest, sample.value, inside, now)
                        }
                        None => counter.own.get(&own).map(|own| own.value),
                    };
                    if let Some(shown) = shown.filter(|_| inside) {
                        // A series that lacks a part of the count has not counted since then.
                        sample.since = sample.since.filter(|_| shown == sample.value);
                        sample.value = shown;
                        family.samples.push(sample);
                    }
                }
                family.samples.extend(others(labels, &counter.other));
            }
            Kind::Gauge | Kind::Amount => {
                let is_inside = |sample: &Sample| members.contains(&sample.labels[id]);
                let (inside, outside): (Vec<_>, Vec<_>) = samples.into_iter().partition(is_inside);
                family.samples = inside;
                if metric.kind == Kind::Amount {
                    let mut sums: BTreeMap<Vec<String>, Number> = BTreeMap::new();
                    for sample in outside {
                        add(&mut sums, rest(labels, &sample.labels), sample.value);
                    }
                    family.samples.extend(others(labels, &sums));
                }
            }
        }
    }

    /// Drops counters that were not seen for long, and of too many the oldest.
    pub(super) fn forget(&mut self, now: Instant) {
        for counter in self.counters.values_mut() {
            forget(&mut counter.counted, |counted| counted.seen, now);
            forget(&mut counter.own, |own| own.seen, now);
        }
    }
}

impl Counter {
    /// Takes in the true counter; returns the value of its own series.
    fn step(
        &mut self,
        process: Vec<String>,
        own: Vec<String>,
        rest: Vec<String>,
        value: Number,
        inside: bool,
        now: Instant,
    ) -> Option<Number> {
        let before = self.counted.insert(process, LastReading { value, inside, seen: now });
        // A new counter has its whole count to give away.
        let last = before.unwrap_or(LastReading { value: value.zero(), inside, seen: now });
        let added = value.growth(last.value);
        let goes_on = last.inside && inside;
        if !goes_on {
            // Also when it comes or goes: its own series is not shown at one end of this step.
            add(&mut self.other, rest, added);
        }
        if inside {
            self.own.entry(own.clone()).or_insert(OwnSeries { value: value.zero(), whole: true, seen: now });
        }
        let own = self.own.get_mut(&own)?;
        if goes_on {
            // A series that has all of it also shows that it began anew.
            let anew = before.is_none() && own.whole && value < own.value;
            own.value = if anew || own.value == last.value { value } else { own.value.plus(added) };
        }
        (own.whole, own.seen) = (own.value == value, now);
        Some(own.value)
    }
}

fn forget<V>(counters: &mut HashMap<Vec<String>, V>, seen: impl Fn(&V) -> Instant, now: Instant) {
    counters.retain(|_, counter| !is_forgotten(seen(counter), now));
    let mut gone: Vec<Instant> = counters.values().map(&seen).filter(|seen| *seen < now).collect();
    if gone.len() > MAX_GONE {
        let half = gone.len() - MAX_GONE / 2;
        // Those that went together stay together.
        let (_, since, _) = gone.select_nth_unstable(half);
        counters.retain(|_, counter| seen(counter) >= *since);
    }
}

fn add(sums: &mut BTreeMap<Vec<String>, Number>, key: Vec<String>, number: Number) {
    sums.entry(key).and_modify(|sum| *sum = sum.plus(number)).or_insert(number);
}

/// The name of a VM may change; it stays the same VM.
fn key(names: &[Label], values: &[String]) -> Vec<String> {
    let pairs = names.iter().zip(values).filter(|(name, _)| **name != NAME);
    pairs.map(|(_, value)| value.clone()).collect()
}

fn rest(names: &[Label], values: &[String]) -> Vec<String> {
    let pairs = names.iter().zip(values).filter(|(name, _)| !WHO.contains(name));
    pairs.map(|(_, value)| value.clone()).collect()
}

fn others(names: &[Label], sums: &BTreeMap<Vec<String>, Number>) -> Vec<Sample> {
    let sample = |(rest, value): (&Vec<String>, &Number)| {
        let mut rest = rest.iter();
        let label = |name: &Label| {
            let value = if WHO.contains(name) { Some(OTHER) } else { rest.next().map(String::as_str) };
            value.unwrap_or_default().to_owned()
        };
        Sample { labels: names.iter().map(label).collect(), value: *value, since: None }
    };
    sums.iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_latest_of_many_ended_vms_are_remembered() {
        let mut sums = Sums::default();
        let start = Instant::now();
        for id in 0..2 * MAX_GONE {
            let now = start + Duration::from_millis(id as u64);
            let labels = vec![id.to_string()];
            let counter = sums.counters.entry("test").or_default();
            counter.step(labels.clone(), labels, Vec::new(), Number::Count(1), true, now);
            sums.forget(now);
        }
        let counter = &sums.counters["test"];
        for labels in [counter.counted.keys().collect::<Vec<_>>(), counter.own.keys().collect()] {
            assert!(labels.len() <= MAX_GONE + 1, "{}", labels.len());
            let least = labels.iter().map(|labels| labels[0].parse::<usize>().unwrap()).min();
            assert!(least > Some(MAX_GONE / 2), "{least:?}");
        }
    }
}
