//! Keeps the account of one device: its identity, its owner, and the owner's offset.

use super::super::backlog::Backlog;
use super::DeviceReading;
use super::gap::Gap;
use super::interface_counter::EarlierTotals;
use super::processes::Process;
use super::stitched::StitchedCounter;
use super::totals::{Totals, counts_anew, decreased};
use super::unexplained::UnexplainedDrops;
use crate::model::{Device, FrameCounts, Nic, NicSince, Tenant};

/// A device counts on over all its owners. Each owner is published its share since it got the device.
#[derive(Debug)]
pub(in crate::manager) struct DeviceAccount {
    /// The last tick that read it; 0 for an account of a daemon before this one.
    pub(super) last_tick: u64,
    /// In seconds of Unix time.
    pub(super) last_seen: f64,
    pub(super) nic: Nic,
    pub(super) device: Device,
    /// The VM that has the device, or had it last.
    pub(super) owner: String,
    /// The user of that VM; not known of an account of a daemon before this one.
    pub(super) tenant: Tenant,
    /// The process of that VM, where it is known: after a restart the VM may have another id.
    pub(super) process: Option<Process>,
    /// When the owner was first seen with it, in seconds of Unix time; `None` when it was there at the first look of all.
    pub(in crate::manager) since: Option<f64>,
    /// The time from which the owner's share counts from 0, in series that never had another name.
    pub(in crate::manager) counts_since: NicSince,
    /// When the device got another name. Its series got other names then, and begin where the former ones end.
    pub(super) renamed_at: Option<f64>,
    programs: Programs,
    /// The owner's counts under this name before this device.
    pub(super) earlier: Option<EarlierTotals>,
    /// Identifies the owner's share among all shares; 0 until it has a number.
    pub(in crate::manager) share: u64,
    /// The counts of the former owners.
    pub(super) offset: Totals,
    /// The cumulative counts at the last publication; `None` before the first one in this process.
    pub(super) published: Option<Totals>,
    /// The device's own last counts, guest perspective: rx and tx.
    pub(super) counts: (FrameCounts, FrameCounts),
    /// The next readings become the offset: the share of each owner in them is not known.
    is_offset_open: bool,
    pub(in crate::manager) rx_bytes: StitchedCounter,
    pub(in crate::manager) rx_packets: StitchedCounter,
    pub(in crate::manager) tx_bytes: StitchedCounter,
    pub(in crate::manager) tx_packets: StitchedCounter,
    /// Counted by the device, and by the program that sees drops.
    pub(in crate::manager) rx_dropped: StitchedCounter,
    /// Dropped packets without a known reason.
    pub(in crate::manager) unexplained: UnexplainedDrops,
    pub(in crate::manager) backlog_packets: Backlog,
    pub(in crate::manager) backlog_bytes: Backlog,
    /// In packets.
    pub(in crate::manager) rx_gap: Gap,
    pub(in crate::manager) tx_gap: Gap,
}

/// The daemon whose programs count for a device.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Programs {
    /// The account is of a daemon before this one, and perhaps the programs are.
    MayBeLeft,
    /// The programs were attached anew. Their former counts are still in the cumulative ones.
    Replaced,
    Own,
}

impl DeviceAccount {
    pub(super) fn new(nic: Nic, device: Device, owner: &str, since: Option<f64>) -> Self {
        Self {
            last_tick: 0,
            last_seen: 0.0,
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
            share: 0,
            offset: Totals::default(),
            published: None,
            counts: Default::default(),
            is_offset_open: false,
            rx_bytes: StitchedCounter::default(),
            rx_packets: StitchedCounter::default(),
            tx_bytes: StitchedCounter::default(),
            tx_packets: StitchedCounter::default(),
            rx_dropped: StitchedCounter::default(),
            unexplained: UnexplainedDrops::default(),
            backlog_packets: Backlog::default(),
            backlog_bytes: Backlog::default(),
            rx_gap: Gap::default(),
            tx_gap: Gap::default(),
        }
    }

    /// Lets the owner begin at the counts published before. Where these are not known, no owner gets the bytes so far:
    /// the device may have changed hands while no daemon looked.
    pub(super) fn start_from(&mut self, cumulative: Option<Totals>) {
        (self.offset, self.is_offset_open) = (cumulative.unwrap_or_default(), cumulative.is_none());
    }

    /// An account of a daemon before this one.
    pub(super) fn restored(self, offset: Totals, now: f64) -> Self {
        let programs = Programs::MayBeLeft;
        Self { counts: (offset.rx, offset.tx), offset, last_seen: now, programs, ..self }
    }

    /// Whether the device counts less than it did: then it is another one.
    pub(super) fn decreased(&self, reading: &DeviceReading<'_>) -> bool {
        let (rx, tx) = &self.counts;
        decreased(&reading.rx, rx) || decreased(&reading.tx, tx)
    }

    pub(super) fn note(&mut self, tick: u64, now: f64, reading: &DeviceReading<'_>) {
        (self.last_tick, self.last_seen) = (tick, now);
        if reading.rx.bytes.is_some() {
            self.counts = (reading.rx, reading.tx);
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
        if is_the_same && self.published.is_none() {
            // Only the id has changed since the daemon before.
            return;
        }
        self.since = now;
        // The new share begins at 0.
        self.counts_since = NicSince { device: now, ebpf: now.filter(|_| self.published.is_some()) };
        (self.earlier, self.renamed_at) = (None, None);
        self.share = 0;
        self.unexplained.hand_over();
        self.rx_gap.hand_over();
        self.tx_gap.hand_over();
        self.start_from(self.published);
    }

    /// Notes when the programs were attached, in seconds of Unix time: they count from 0 since then.
    pub(in crate::manager) fn attached(&mut self, at: Option<f64>) {
        if at.is_some() && self.programs == Programs::MayBeLeft {
            self.programs = Programs::Replaced;
        }
        let is_later = |at: &f64| self.renamed_at.is_none_or(|renamed_at| *at > renamed_at);
        let Some(at) = at.filter(is_later) else { return };
        let since = self.counts_since.ebpf.map_or(at, |since| since.max(at));
        self.counts_since.ebpf = Some(since.max(self.counts_since.device.unwrap_or(at)));
    }

    /// Whether programs of this daemon have replaced those before it. Returns true once.
    pub(super) fn take_replaced(&mut self) -> bool {
        let is_replaced = self.programs == Programs::Replaced;
        if is_replaced {
            self.programs = Programs::Own;
        }
        is_replaced
    }

    /// Returns the owner's share of the cumulative counts, and remembers that they are published.
    pub(in crate::manager) fn publish(&mut self, cumulative: Totals) -> Totals {
        if self.is_offset_open {
            // Each count has its offset at its first reading.
            self.offset = self.offset.or(&cumulative);
            let Totals { rx, tx, ebpf } = &self.offset;
            self.is_offset_open = rx.bytes.is_none() || tx.bytes.is_none() || ebpf.is_none();
        }
        let before = self.published.as_ref().and_then(|last| last.ebpf).or(self.offset.ebpf);
        if cumulative.ebpf.zip(before).is_some_and(|(now, before)| counts_anew(&now, &before)) {
            self.offset.ebpf = None;
        }
        self.published = Some(self.published.map_or(cumulative, |last| cumulative.or(&last)));
        cumulative.since(&self.offset)
    }
}
