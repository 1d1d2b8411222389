//! The counters: which part of each is in the VM's own series, and what the rest has added up to.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::members::Members;
use super::processes::Processes;
use super::{Family, OTHER, is_forgotten};
use crate::exporters::families::Sample;
use crate::exporters::metrics::Kind;

const ID: &str = "instance_id";

/// Labels that say which VM it is, or which part of it.
const WHO: [&str; 4] = [ID, "instance_name", "device", "netns"];

/// What has it counts by itself, whatever the process: what one VM was given of it is no other's.
const DEVICE: &str = "device";

/// Gauges that mean something when they are added up end so.
const ADDITIVE: [&str; 2] = ["_bytes", "_vcpus"];

#[derive(Debug, Default)]
pub(super) struct Sums {
    counters: HashMap<&'static str, Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    /// By process and labels.
    counted: HashMap<Vec<String>, Counted>,
    /// By id and labels, of VMs that are or were among the top.
    own: HashMap<Vec<String>, Own>,
    /// By the labels that are not [`WHO`]. Never falls.
    other: BTreeMap<Vec<String>, f64>,
}

/// The true counter, at the last look.
#[derive(Clone, Copy, Debug)]
struct Counted {
    value: f64,
    inside: bool,
    seen: Instant,
}

/// A series of a VM's own.
#[derive(Clone, Copy, Debug)]
struct Own {
    value: f64,
    /// It has all that was counted.
    whole: bool,
    seen: Instant,
}

impl Sums {
    /// `now` is when the numbers were taken; `None` repeats what was shown last.
    pub(super) fn fit(
        &mut self,
        family: &mut Family,
        members: &Members,
        processes: &Processes,
        now: Option<Instant>,
    ) {
        let Some(id) = family.labels.iter().position(|label| *label == ID) else { return };
        let samples = std::mem::take(&mut family.samples);
        match family.kind {
            Kind::Counter => {
                let counter = self.counters.entry(family.name).or_default();
                for mut sample in samples {
                    let inside = members.contains(&sample.labels[id]);
                    let own = key(family.labels, &sample.labels);
                    let shown = match now {
                        Some(now) => {
                            let mut process = own.clone();
                            if !family.labels.contains(&DEVICE) {
                                process[id] = processes.name(&own[id]).to_owned();
                            }
                            let rest = rest(family.labels, &sample.labels);
                            counter.step(process, own, rest, sample.value, inside, now)
                        }
                        None => counter.own.get(&own).map(|own| own.value),
                    };
                    if let Some(shown) = shown.filter(|_| inside) {
                        sample.value = shown;
                        family.samples.push(sample);
                    }
                }
                family.samples.extend(others(family.labels, &counter.other));
            }
            Kind::Gauge => {
                let is_inside = |sample: &Sample| members.contains(&sample.labels[id]);
                let (inside, outside): (Vec<_>, Vec<_>) = samples.into_iter().partition(is_inside);
                family.samples = inside;
                if ADDITIVE.iter().any(|end| family.name.ends_with(end)) {
                    let mut sums: BTreeMap<Vec<String>, f64> = BTreeMap::new();
                    for sample in outside {
                        *sums.entry(rest(family.labels, &sample.labels)).or_default() += sample.value;
                    }
                    family.samples.extend(others(family.labels, &sums));
                }
            }
        }
    }

    /// Drops what was not seen for long.
    pub(super) fn forget(&mut self, now: Instant) {
        for counter in self.counters.values_mut() {
            counter.counted.retain(|_, counted| !is_forgotten(counted.seen, now));
            counter.own.retain(|_, own| !is_forgotten(own.seen, now));
        }
    }
}

impl Counter {
    /// Takes in the true counter, and gives what its own series shows of it.
    fn step(
        &mut self,
        process: Vec<String>,
        own: Vec<String>,
        rest: Vec<String>,
        value: f64,
        inside: bool,
        now: Instant,
    ) -> Option<f64> {
        let before = self.counted.insert(process, Counted { value, inside, seen: now });
        // A new one has all of its count to give away.
        let last = before.unwrap_or(Counted { value: 0.0, inside, seen: now });
        // Less than before is a counter that began anew at 0.
        let added = if value < last.value { value } else { value - last.value };
        let goes_on = last.inside && inside;
        if !goes_on {
            // Also when it comes or goes: its own series is not shown at one end of this step.
            *self.other.entry(rest).or_default() += added;
        }
        if inside {
            self.own.entry(own.clone()).or_insert(Own { value: 0.0, whole: true, seen: now });
        }
        let own = self.own.get_mut(&own)?;
        if goes_on {
            // A series that has all of it also shows that it began anew.
            let anew = before.is_none() && own.whole && value < own.value;
            own.value = if anew || own.value == last.value { value } else { own.value + added };
        }
        (own.whole, own.seen) = (own.value == value, now);
        Some(own.value)
    }
}

/// The name of a VM may change; it stays the same VM.
fn key(names: &[&str], values: &[String]) -> Vec<String> {
    let pairs = names.iter().zip(values).filter(|(name, _)| **name != WHO[1]);
    pairs.map(|(_, value)| value.clone()).collect()
}

fn rest(names: &[&str], values: &[String]) -> Vec<String> {
    let pairs = names.iter().zip(values).filter(|(name, _)| !WHO.contains(name));
    pairs.map(|(_, value)| value.clone()).collect()
}

fn others(names: &[&str], sums: &BTreeMap<Vec<String>, f64>) -> Vec<Sample> {
    let sample = |(rest, value): (&Vec<String>, &f64)| {
        let mut rest = rest.iter();
        let label = |name: &&str| {
            let value = if WHO.contains(name) { Some(OTHER) } else { rest.next().map(String::as_str) };
            value.unwrap_or_default().to_owned()
        };
        Sample { labels: names.iter().map(label).collect(), value: *value }
    };
    sums.iter().map(sample).collect()
}
