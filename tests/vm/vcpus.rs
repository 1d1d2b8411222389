//! vCPU time and CPU wait of a real QEMU guest.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;

use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::guest::{Guest, GuestConfig, GuestImage};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::puppet::{self, Puppet};
use vm_metrics_testkit::wait::SOON;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");

/// The process that occupies the host's CPU, see `puppet`.
#[test]
fn the_puppet() {
    puppet::run_if_asked().unwrap();
}

struct GuestLab {
    daemon: Daemon,
    guest: Guest,
    id: String,
}

/// Times of both vCPUs and the process, and the vCPUs' waiting, in one snapshot.
#[derive(Clone, Copy, Debug)]
struct Times {
    run: [f64; 2],
    wait: [f64; 2],
    process: f64,
    wait_of_all: f64,
}

impl GuestLab {
    fn new(name: &str, args: &[&str]) -> Self {
        let image = GuestImage::prepare().unwrap();
        let daemon = Daemon::start(Path::new(BINARY), &["--no-ebpf", "--interval", "100ms"]).unwrap();
        let mut config = GuestConfig::new(name, Vec::new()).unwrap();
        config.vcpus = 2;
        config.extra_args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let guest = image.boot(config).unwrap();
        let id = guest.config().uuid.clone();
        Self { daemon, guest, id }
    }

    /// Returns the times of a snapshot that began after the call.
    fn times(&self) -> Times {
        let ticks = |metrics: &Metrics| metrics.value("vm_exporter_ticks_total", &[]).unwrap();
        let before = ticks(&self.daemon.metrics().unwrap());
        let find = |metrics: &Metrics| (ticks(metrics) >= before + 2.0).then(|| self.times_in(metrics))?;
        self.daemon.wait_for(SOON, "the times of two vCPUs", find).unwrap()
    }

    fn times_in(&self, metrics: &Metrics) -> Option<Times> {
        let vm = ("instance_id", self.id.as_str());
        let of = |name: &str, vcpu: &str| metrics.value(name, &[vm, ("vcpu", vcpu)]);
        Some(Times {
            run: [of("vm_vcpu_seconds_total", "0")?, of("vm_vcpu_seconds_total", "1")?],
            wait: [of("vm_vcpu_wait_seconds_total", "0")?, of("vm_vcpu_wait_seconds_total", "1")?],
            process: metrics.value("vm_cpu_seconds_total", &[vm])?,
            wait_of_all: metrics.value("vm_cpu_wait_seconds_total", &[vm])?,
        })
    }

    /// Runs a loop on this CPU of the guest, and returns its times.
    fn burn(&mut self, cpu: usize) -> Times {
        let before = self.times();
        let mask = 1 << cpu;
        let line = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        self.guest.run(&format!("taskset {mask} sh -c '{line}'")).unwrap();
        let after = self.times();
        let less = |of: fn(&Times) -> [f64; 2]| [0, 1].map(|vcpu| of(&after)[vcpu] - of(&before)[vcpu]);
        let spent = Times {
            run: less(|times| times.run),
            wait: less(|times| times.wait),
            process: after.process - before.process,
            wait_of_all: after.wait_of_all - before.wait_of_all,
        };
        let of_vcpus = |values: [f64; 2]| values.iter().sum::<f64>();
        assert!(of_vcpus(after.run) <= after.process, "{after:?}");
        assert!(of_vcpus(after.wait) <= after.wait_of_all, "{after:?}");
        spent
    }

    /// Returns the host's thread of this vCPU by its name.
    fn thread(&self, vcpu: usize) -> Pid {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.guest.pid())).unwrap();
        let is_it = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).unwrap() == format!("CPU {vcpu}/TCG\n")
        };
        let task = tasks.map(Result::unwrap).find(is_it).unwrap();
        Pid::from_raw(task.file_name().to_str().unwrap().parse().unwrap()).unwrap()
    }
}

#[test]
fn each_vcpu_has_its_guest_time() {
    let mut lab = GuestLab::new("vcpus", &["-name", "debug-threads=on"]);
    for cpu in [1, 0] {
        let spent = lab.burn(cpu);
        assert!(spent.run[cpu] > 3.0 * spent.run[1 - cpu], "vCPU {cpu} was busy: {spent:?}");
        assert!(spent.process < 2.0 * spent.run[cpu], "most of the time was the guest's: {spent:?}");
    }
}

#[test]
fn a_vcpu_waits_for_a_busy_cpu() {
    let mut lab = GuestLab::new("robbed", &["-name", "debug-threads=on"]);
    let mut set = CpuSet::new();
    set.set(1);
    sched_setaffinity(Some(lab.thread(1)), &set).unwrap();
    let mut rival = Puppet::start("vcpus::the_puppet").unwrap();
    let at_work = rival.start_thread("rival").unwrap();
    rival.pin(1).unwrap();
    // The rival outlasts the loop and ends with the puppet.
    let rival = thread::scope(|scope| {
        let spent = lab.burn(1);
        let quiet = spent.wait[1] / spent.run[1];
        let (stop, stopped) = mpsc::channel::<()>();
        let worker = scope.spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                rival.work(at_work, 100).unwrap();
            }
            rival
        });
        let spent = lab.burn(1);
        drop(stop);
        assert!(spent.wait[1] > 0.3 * spent.run[1], "half of the CPU was gone: {spent:?}");
        assert!(spent.wait[1] / spent.run[1] > quiet, "{spent:?}, before {quiet}");
        worker.join().unwrap()
    });
    drop(rival);
}

#[test]
fn without_thread_names_no_vcpu_is_guessed() {
    let lab = GuestLab::new("nameless", &[]);
    let find = |metrics: &Metrics| {
        metrics
            .value("vm_cpu_wait_seconds_total", &[("instance_id", lab.id.as_str())])
            .map(|_| metrics.clone())
    };
    let metrics = lab.daemon.wait_for(SOON, "its threads", find).unwrap();
    assert!(lab.times_in(&metrics).is_none());
}
