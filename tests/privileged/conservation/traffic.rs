//! Sends frames of many kinds both ways, with threads pinned to CPUs.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::thread::{CpuSet, sched_setaffinity};
use vm_metrics_testkit::child::ChildProcess;
use vm_metrics_testkit::frames::{BROADCAST, Frame, MULTICAST};
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::tap::Tap;

use super::oracle::Life;
use vm_metrics_testkit::random::Random;

/// A TAP's ring holds 1000 frames, so with all threads on one TAP nothing drops.
const BATCH: u64 = 32;

/// Jobs that may wait for a thread.
const QUEUE: usize = 64;

/// A VM's device. It goes with its last job, under traffic to the end.
#[derive(Debug)]
pub(crate) struct Nic {
    // Drop order: the VMM, both ends of the device, then the record of its end.
    pub(crate) vmm: Option<ChildProcess>,
    host: PacketSocket,
    pub(crate) tap: Tap,
    pub(crate) life: LifeGuard,
}

/// Notes the end of the device in the oracle.
#[derive(Debug)]
pub(crate) struct LifeGuard(pub(crate) Arc<Life>);

impl Drop for LifeGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Nic {
    pub(crate) fn new(tap: Tap, life: LifeGuard) -> Self {
        let host = PacketSocket::bind(tap.name()).unwrap();
        Self { vmm: None, host, tap, life }
    }

    /// Ends the VM, and leaves its persistent device without a holder.
    pub(crate) fn abandon(self) -> LifeGuard {
        drop(self.vmm);
        self.tap.leave();
        self.life
    }

    /// Moves so many frames in each direction.
    pub(crate) fn exchange(&self, frames: u64, random: &mut Random, kinds: &FrameKinds) {
        for index in 0..frames {
            let frame = &kinds.from_guest[random.of(0..kinds.from_guest.len())];
            self.life.0.sends(frame);
            self.tap.write_frame(frame).unwrap();
            self.life.0.sent(frame);
            let frame = &kinds.to_guest[random.of(0..kinds.to_guest.len())];
            self.life.0.offers(frame);
            self.host.send(frame).unwrap();
            if index % BATCH == BATCH - 1 || index == frames - 1 {
                self.drain();
            }
        }
    }

    fn drain(&self) {
        let mut buffer = [0; 2048];
        while let Some(length) = self.tap.read_frame(&mut buffer).unwrap() {
            self.life.0.took(length);
        }
    }
}

/// One frame of each kind.
#[derive(Debug)]
pub(crate) struct FrameKinds {
    from_guest: Vec<Vec<u8>>,
    to_guest: Vec<Vec<u8>>,
}

impl FrameKinds {
    pub(crate) fn new() -> Self {
        Self { from_guest: kinds(&Frame::from_guest()), to_guest: kinds(&Frame::to_guest()) }
    }
}

fn kinds(frame: &Frame) -> Vec<Vec<u8>> {
    let frame = || frame.clone();
    vec![
        frame().udp4(1),
        frame().udp4(1472),
        frame().tcp4(0),
        frame().tcp6(999),
        frame().icmp4(56),
        frame().to(BROADCAST).arp(),
        frame().to(MULTICAST).udp4(333),
        frame().vlan(7).udp4(500),
        frame().service_vlan(9).vlan(7).tcp4(77),
        frame().runt(15),
    ]
}

struct Job {
    nic: Arc<Nic>,
    frames: u64,
    seed: u64,
}

/// Two threads for each CPU.
#[derive(Debug)]
pub(crate) struct Writers {
    threads: Vec<SyncSender<Job>>,
    next: usize,
}

impl Writers {
    pub(crate) fn start() -> Self {
        let cpus = thread::available_parallelism().unwrap().get();
        Self { threads: (0..2 * cpus).map(|index| writer(index % cpus)).collect(), next: 0 }
    }

    /// Queues jobs for several threads, each with so many frames. Does not wait for them.
    pub(crate) fn exchange(&mut self, nic: &Arc<Nic>, frames: u64, threads: usize, random: &mut Random) {
        for _ in 0..threads {
            let job = Job { nic: Arc::clone(nic), frames, seed: random.number() };
            self.threads[self.next].send(job).expect("a writer has not panicked");
            self.next = (self.next + 1) % self.threads.len();
        }
    }
}

fn writer(cpu: usize) -> SyncSender<Job> {
    let (sender, jobs) = sync_channel::<Job>(QUEUE);
    let work = move || {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).unwrap();
        let kinds = FrameKinds::new();
        for Job { nic, frames, seed } in jobs {
            nic.exchange(frames, &mut Random::new(seed), &kinds);
        }
    };
    thread::Builder::new().name(format!("writer-{cpu}")).spawn(work).unwrap();
    sender
}
