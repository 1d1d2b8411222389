//! The written traffic of each device, as the oracle for published values.
//!
//! A series (a VM's device) shows one *life* after another, each a device with that name. Each published value must
//! belong to one life. It must not exceed the written traffic, must not fall, and must not return to an earlier life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::published;

/// Guest perspective: rx bytes, rx packets, tx bytes, tx packets.
pub(crate) type Numbers = [u64; 4];

/// Identifies a VM and its device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) vm: String,
    pub(crate) tap: String,
    /// Empty for the daemon's namespace, like the label.
    pub(crate) netns: String,
}

#[derive(Debug, Default)]
struct Tally {
    bytes: AtomicU64,
    packets: AtomicU64,
}

/// A device of a VM from its creation to its deletion.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Upper bound of the kernel's count, noted before each write.
    offered: Tally,
    sending: Tally,
    /// Lower bound of the kernel's count, noted after each write.
    taken: Tally,
    sent: Tally,
    ended: AtomicBool,
}

impl Life {
    pub(crate) fn offers(&self, frame: &[u8]) {
        self.offered.add(frame.len());
    }

    pub(crate) fn took(&self, length: usize) {
        self.taken.add(length);
    }

    pub(crate) fn sends(&self, frame: &[u8]) {
        self.sending.add(frame.len());
    }

    pub(crate) fn sent(&self, frame: &[u8]) {
        self.sent.add(frame.len());
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn at_most(&self) -> Numbers {
        numbers(&self.offered, &self.sending)
    }

    fn exactly(&self) -> Numbers {
        numbers(&self.taken, &self.sent)
    }
}

impl Tally {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        self.packets.fetch_add(1, Ordering::SeqCst);
    }
}

fn numbers(rx: &Tally, tx: &Tally) -> Numbers {
    [&rx.bytes, &rx.packets, &tx.bytes, &tx.packets].map(|count| count.load(Ordering::SeqCst))
}

/// All series.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    series: BTreeMap<Key, Series>,
}

#[derive(Debug, Default)]
struct Series {
    lives: Vec<Account>,
    /// Lives that fit the last numbers: several as long as the numbers are ambiguous.
    may_be: Vec<usize>,
    last: [Option<u64>; 4],
}

#[derive(Debug)]
struct Account {
    life: Arc<Life>,
    shown: Numbers,
    /// The daemon published its final counters.
    heard: bool,
    /// No daemon ran when it ended.
    unseen: bool,
}

/// Sums over lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) lives: u64,
    pub(crate) written: Numbers,
    pub(crate) published: Numbers,
}

impl Oracle {
    pub(crate) fn begin(&mut self, key: &Key) -> Arc<Life> {
        let series = self.series.entry(key.clone()).or_default();
        let life = Arc::new(Life::default());
        series.lives.push(Account { life: Arc::clone(&life), shown: [0; 4], heard: false, unseen: false });
        if series.may_be.is_empty() {
            series.may_be = vec![0];
        }
        life
    }

    /// Checks the values of one scrape.
    pub(crate) fn check(&mut self, shown: &BTreeMap<Key, published::Numbers>) -> Result<(), String> {
        for (key, now) in shown {
            let series = self.series.get_mut(key).ok_or_else(|| format!("{key:?} is shown, and no VM's"))?;
            series.check(*now).map_err(|problem| format!("{key:?}: {problem}"))?;
        }
        Ok(())
    }

    /// Whether the daemon published the final counters of the latest life, or cannot.
    pub(crate) fn is_settled(&self, key: &Key) -> bool {
        let last = self.series.get(key).and_then(|series| series.lives.last());
        last.is_none_or(|account| account.heard || account.unseen)
    }

    /// Whether the latest life has exactly the written traffic.
    pub(crate) fn is_exact(&self, key: &Key) -> bool {
        let Some(series) = self.series.get(key) else { return true };
        let Some(account) = series.lives.last() else { return true };
        series.may_be.contains(&(series.lives.len() - 1)) && is_all(series.last, account.life.exactly())
    }

    /// Stops to expect unpublished final counters, because the daemon that would publish them stopped.
    pub(crate) fn excuse(&mut self) {
        for account in self.series.values_mut().flat_map(|series| &mut series.lives) {
            account.unseen |= account.life.has_ended() && !account.heard;
        }
    }

    /// A new device replaces this one at once, so the series has no room for its final counters.
    pub(crate) fn excuse_last(&mut self, key: &Key) {
        if let Some(account) = self.series.get_mut(key).and_then(|series| series.lives.last_mut()) {
            account.unseen = !account.heard;
        }
    }

    /// Returns for each VM the sums over lives with an observable end, and over the others.
    pub(crate) fn sums(&self) -> BTreeMap<String, (Sums, Sums)> {
        let mut sums: BTreeMap<String, (Sums, Sums)> = BTreeMap::new();
        for (key, series) in &self.series {
            let (seen, unseen) = sums.entry(key.vm.clone()).or_default();
            for account in &series.lives {
                let sums = if account.unseen { &mut *unseen } else { &mut *seen };
                sums.add(account.life.exactly(), account.shown);
            }
        }
        sums
    }

    pub(crate) fn describe(&self, key: &Key) -> String {
        let Some(series) = self.series.get(key) else { return format!("{key:?}: never begun") };
        let Some(account) = series.lives.last() else { return format!("{key:?}: no life") };
        let life = &account.life;
        format!(
            "{key:?}, life {}: {:?} written, {:?} shown, of one of {:?}",
            series.lives.len() - 1,
            life.exactly(),
            series.last,
            series.may_be
        )
    }
}

impl Series {
    fn check(&mut self, now: [Option<u64>; 4]) -> Result<(), String> {
        let grows = now.iter().zip(&self.last).all(|(now, last)| now.is_none() || now >= last);
        let fits =
            |life: &Life| now.iter().zip(life.at_most()).all(|(now, most)| now.is_none_or(|now| now <= most));
        let may_be = |index: &usize| {
            let stays = grows && self.may_be.contains(index);
            (stays || self.may_be.iter().any(|former| former < index)) && fits(&self.lives[*index].life)
        };
        let may_be: Vec<usize> = (0..self.lives.len()).filter(may_be).collect();
        let Some(&first) = may_be.first() else {
            let most: Vec<Numbers> = self.lives.iter().map(|account| account.life.at_most()).collect();
            let most = &most[self.may_be.first().copied().unwrap_or(0)..];
            return Err(format!(
                "{now:?} after {:?} of {:?}; written at most {most:?}",
                self.last, self.may_be
            ));
        };
        let moved = !self.may_be.contains(&first);
        self.may_be = may_be;
        for (last, now) in self.last.iter_mut().zip(now) {
            *last = if moved { now } else { now.or(*last) };
        }
        for &index in &self.may_be {
            let account = &mut self.lives[index];
            let ended = account.life.has_ended();
            if ended && is_all(self.last, account.life.exactly()) {
                account.heard = true;
                account.shown = account.life.exactly();
            }
        }
        // Only unobserved ends leave several lives, and then no comparison follows.
        if let [only] = self.may_be[..] {
            self.lives[only].shown = self.last.map(Option::unwrap_or_default);
        }
        Ok(())
    }
}

fn is_all(shown: [Option<u64>; 4], written: Numbers) -> bool {
    shown == written.map(Some)
}

impl Sums {
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.lives += other.lives;
        self.add_numbers(other.written, other.published);
    }

    fn add(&mut self, written: Numbers, published: Numbers) {
        self.lives += 1;
        self.add_numbers(written, published);
    }

    fn add_numbers(&mut self, written: Numbers, published: Numbers) {
        for index in 0..4 {
            self.written[index] += written[index];
            self.published[index] += published[index];
        }
    }
}
