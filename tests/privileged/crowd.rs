//! Many TAPs that wait for the programs at once, under traffic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vm_metrics::{AttachMode, NicStats};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::netns::ForeignNetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::tap::{Tap, TapOptions};
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::isolation::figures;
use crate::lab::{Lab, tcx};

/// More than a tick attaches to.
const CROWD: usize = 30;

const BUSY: [usize; 3] = [8, 17, 26];

#[test]
fn the_busiest_taps_come_first() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    let mut lab = Lab::without_tick("tcx", CROWD, TapOptions::default());
    for number in BUSY {
        (0..50).for_each(|_| lab.taps[number].write_frame(&Frame::from_guest().udp4(300)).unwrap());
    }
    let nics = lab.tick();
    let attached: Vec<usize> = (0..CROWD).filter(|number| is_attached(&nics[*number])).collect();
    let is_busy_first = attached.iter().all(|number| BUSY.contains(number))
        || BUSY.iter().all(|number| attached.contains(number));
    assert!(!attached.is_empty() && is_busy_first, "{attached:?}");
}

/// An attachment takes the kernel's lock on network configuration. The figures say for how long others wait.
#[test]
fn a_crowd_loses_no_frame_to_the_attach() {
    if let Err(reason) = tcx() {
        return skip(&reason);
    }
    let mut lab = Lab::without_tick("tcx", CROWD, TapOptions::default());
    let taps = std::mem::take(&mut lab.taps);
    let (rounds, (took, waits)) = pass_while(&taps, || {
        measure_waits(|| {
            let began = Instant::now();
            let mut all = || Ok(lab.tick().iter().all(is_attached).then_some(()));
            wait_until(SOON, "the programs on each TAP", &mut all).unwrap();
            began.elapsed()
        })
    });
    figures(&format!("{CROWD} TAPs by TCX under traffic: {took:?}; {waits}"));
    let before = lab.tick();
    let (more, ()) = pass_while(&taps, || drop(lab.tick()));
    for (before, nic) in before.iter().zip(lab.tick()) {
        assert_eq!((nic.tx.packets, nic.rx.packets), (Some(rounds + more), Some(rounds + more)));
        let udp = |nic: &NicStats| nic.ebpf.map(|ebpf| (ebpf.tx.udp.unwrap(), ebpf.rx.udp.unwrap())).unwrap();
        let (former, now) = (udp(before), udp(&nic));
        assert_eq!((now.0 - former.0, now.1 - former.1), (more, more), "each frame counts once");
    }
}

fn is_attached(nic: &NicStats) -> bool {
    nic.attach != AttachMode::None
}

/// Passes a frame in both directions over each TAP, again and again, while `work` runs. Returns the number of rounds.
fn pass_while<T>(taps: &[Tap], work: impl FnOnce() -> T) -> (u64, T) {
    let peers: Vec<PacketSocket> = taps.iter().map(|tap| PacketSocket::bind(tap.name()).unwrap()).collect();
    let (sent, taken) = (Frame::from_guest().udp4(300), Frame::to_guest().udp4(500));
    let mut buffer = vec![0; 2048];
    let mut rounds = 0;
    let pass = || {
        for (tap, peer) in taps.iter().zip(&peers) {
            tap.write_frame(&sent).unwrap();
            peer.send(&taken).unwrap();
            assert!(tap.read_frame(&mut buffer).unwrap().is_some(), "{} has lost a frame", tap.name());
        }
        rounds += 1;
    };
    let done = repeat_while(pass, work);
    (rounds, done)
}

/// Takes the lock for a device of another namespace, again and again, while `work` runs.
fn measure_waits<T>(work: impl FnOnce() -> T) -> (T, String) {
    let elsewhere = ForeignNetNs::new().unwrap();
    let other = {
        let _inside = elsewhere.enter().unwrap();
        Tap::create("vmother", TapOptions::default()).unwrap()
    };
    let mut waits = Vec::new();
    let ask = || {
        let began = Instant::now();
        other.set_offload(false).unwrap();
        waits.push(began.elapsed());
        thread::sleep(Duration::from_millis(1));
    };
    let done = repeat_while(ask, work);
    waits.sort();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    (done, format!("others waited {median:?} (median) and {longest:?} (at most) for the lock"))
}

/// Repeats a step on another thread, at least once, while `work` runs here.
fn repeat_while<T>(mut step: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                step();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // This also runs on a panic below, because the scope waits for the thread.
        let _stopped = StopOnDrop(&stop);
        work()
    })
}

struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
