//! The account of one device: who has it, what its former owners were given, and what tells it from any other.

use super::super::backlog::Backlog;
use super::Seen;
use super::continued::Continued;
use super::gap::Gap;
use super::line::Earlier;
use super::processes::Process;
use super::totals::{Totals, counts_anew, fell};
use super::untold::Untold;
use crate::model::{FrameCounts, Nic, NicSince, Tenant};

/// Of a device the line is continued over all its owners; each is published the part since it got the device.
#[derive(Debug)]
pub(in crate::manager) struct Account {
    /// The tick that touched it last; 0 for one that a daemon before this one has left.
    pub(super) seen: u64,
    /// In seconds of Unix time.
    pub(super) seen_at: f64,
    pub(super) nic: Nic,
    /// What the kernel never gives to another device, where it gives anything.
    pub(super) device: Option<u64>,
    /// The VM that has the device, or had it last.
    pub(super) owner: String,
    /// Whose VM it is; not known of what a daemon before this one has left.
    pub(super) tenant: Tenant,
    /// Its process, where it is known: the id of a VM may be another one after a restart.
    pub(super) process: Option<Process>,
    /// When the owner was first seen with it, in seconds of Unix time; `None` when it was there at the first look of all.
    pub(in crate::manager) since: Option<f64>,
    /// Since when the owner's part counts from 0, in series that have had no other names.
    pub(in crate::manager) counts_since: NicSince,
    /// When the device got another name, and so other series, which begin where those of before end.
    pub(super) renamed_at: Option<f64>,
    programs: Programs,
    /// What the owner has been given under this name before.
    pub(super) earlier: Option<Earlier>,
    /// Tells the owner's part of this device from any other part; 0 until it is given a number.
    pub(in crate::manager) part: u64,
    /// What the former owners were given.
    pub(super) origin: Totals,
    /// The line at its last publication; `None` before the first one in this process.
    pub(super) last: Option<Totals>,
    /// What the device itself said last, guest perspective: rx and tx.
    pub(super) raw: (FrameCounts, FrameCounts),
    /// The first readings from now on are the origin: nobody knows how much of them is whose.
    cut: bool,
    pub(in crate::manager) rx_bytes: Continued,
    pub(in crate::manager) rx_packets: Continued,
    pub(in crate::manager) tx_bytes: Continued,
    pub(in crate::manager) tx_packets: Continued,
    /// Counted by the device, and by the program that sees drops.
    pub(in crate::manager) rx_dropped: Continued,
    /// Of the dropped ones, those whose reason is not known.
    pub(in crate::manager) untold: Untold,
    pub(in crate::manager) backlog_packets: Backlog,
    pub(in crate::manager) backlog_bytes: Backlog,
    /// In packets.
    pub(in crate::manager) rx_gap: Gap,
    pub(in crate::manager) tx_gap: Gap,
}

/// Whose programs count for a device.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Programs {
    /// A daemon before this one has left the account, and perhaps the programs.
    MayBeLeft,
    /// The programs were attached anew, and what was counted before is still in the line.
    Replaced,
    Own,
}

impl Account {
    pub(super) fn new(nic: Nic, device: Option<u64>, owner: &str, since: Option<f64>) -> Self {
        Self {
            seen: 0,
            seen_at: 0.0,
            nic,
            device,
            owner: owner.to_owned(),
            tenant: Tenant::Other(None),
            process: None,
            since,
            counts_since: NicSince::default(),
            renamed_at: None,
            programs: Programs::Own,
            earlier: None,
            part: 0,
            origin: Totals::default(),
            last: None,
            raw: Default::default(),
            cut: false,
            rx_bytes: Continued::default(),
            rx_packets: Continued::default(),
            tx_bytes: Continued::default(),
            tx_packets: Continued::default(),
            rx_dropped: Continued::default(),
            untold: Untold::default(),
            backlog_packets: Backlog::default(),
            backlog_bytes: Backlog::default(),
            rx_gap: Gap::default(),
            tx_gap: Gap::default(),
        }
    }

    /// What had been published of the device before is where its owner begins. Where nobody knows it, as when it passed
    /// while no daemon looked, it is given to nobody.
    pub(super) fn begin_at(&mut self, line: Option<Totals>) {
        (self.origin, self.cut) = (line.unwrap_or_default(), line.is_none());
    }

    /// One that a daemon before this one has left.
    pub(super) fn restored(self, origin: Totals, now: f64) -> Self {
        let programs = Programs::MayBeLeft;
        Self { raw: (origin.rx, origin.tx), origin, seen_at: now, programs, ..self }
    }

    /// Whether the device that has the name and the index now is still the one of this account.
    pub(super) fn is_of(&self, nic: &Nic, device: Option<u64>) -> bool {
        match (self.device, device) {
            (Some(known), Some(now)) => known == now,
            _ => self.nic == *nic,
        }
    }

    /// The device itself counts less than it did: it is another one.
    pub(super) fn fell(&self, seen: &Seen<'_>) -> bool {
        let (rx, tx) = &self.raw;
        fell(&seen.rx, rx) || fell(&seen.tx, tx)
    }

    pub(super) fn saw(&mut self, tick: u64, now: f64, seen: &Seen<'_>) {
        (self.seen, self.seen_at) = (tick, now);
        if seen.rx.bytes.is_some() {
            self.raw = (seen.rx, seen.tx);
        }
    }

    pub(super) fn rename(&mut self, nic: &Nic, now: f64) {
        self.nic = nic.clone();
        self.counts_since = NicSince::default();
        self.renamed_at = Some(now);
    }

    pub(super) fn hand_to(&mut self, owner: &str, process: Option<Process>, now: Option<f64>) {
        owner.clone_into(&mut self.owner);
        let is_the_same = process.is_some() && self.process == process;
        self.process = process;
        if is_the_same && self.last.is_none() {
            // Only the id is another one than for the daemon before.
            return;
        }
        self.since = now;
        // It begins at 0.
        self.counts_since = NicSince { device: now, ebpf: now.filter(|_| self.last.is_some()) };
        (self.earlier, self.renamed_at) = (None, None);
        self.part = 0;
        self.untold.hand_over();
        self.rx_gap.hand_over();
        self.tx_gap.hand_over();
        self.begin_at(self.last);
    }

    /// The programs count from 0 since this time, in seconds of Unix time, if anybody knows: what they have counted for
    /// this owner cannot have begun before.
    pub(in crate::manager) fn attached(&mut self, at: Option<f64>) {
        if at.is_some() && self.programs == Programs::MayBeLeft {
            self.programs = Programs::Replaced;
        }
        let is_later = |at: &f64| self.renamed_at.is_none_or(|renamed_at| *at > renamed_at);
        let Some(at) = at.filter(is_later) else { return };
        let since = self.counts_since.ebpf.map_or(at, |since| since.max(at));
        self.counts_since.ebpf = Some(since.max(self.counts_since.device.unwrap_or(at)));
    }

    /// Whether programs of this daemon have taken the place of those before it; said once.
    pub(super) fn take_replaced(&mut self) -> bool {
        let is_replaced = self.programs == Programs::Replaced;
        if is_replaced {
            self.programs = Programs::Own;
        }
        is_replaced
    }

    /// What the owner is published with, of the line as it is now.
    pub(in crate::manager) fn publish(&mut self, line: Totals) -> Totals {
        if self.cut {
            // Each part at its first reading.
            self.origin = self.origin.or(&line);
            let Totals { rx, tx, ebpf } = &self.origin;
            self.cut = rx.bytes.is_none() || tx.bytes.is_none() || ebpf.is_none();
        }
        let before = self.last.as_ref().and_then(|last| last.ebpf).or(self.origin.ebpf);
        if line.ebpf.zip(before).is_some_and(|(now, before)| counts_anew(&now, &before)) {
            self.origin.ebpf = None;
        }
        self.last = Some(self.last.map_or(line, |last| line.or(&last)));
        line.since(&self.origin)
    }
}
