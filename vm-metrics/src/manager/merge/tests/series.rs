//! Tests the beginnings of series, and their devices.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::host::Host;
use crate::model::NicSince;
use crate::readers::Purpose;

/// A host on which devices are made and removed, and the directory in which daemons leave their state.
struct Lab(TempDir, Host);

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
        let files =
            [("sys/kernel/random/boot_id", "one\n"), ("thread-self/ns/net", ""), ("stat", "btime 100\n")];
        for (file, content) in files {
            let path = host.proc().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(host.net_device("lo")).unwrap();
        Self(dir, host)
    }

    fn daemon(&self) -> Daemon {
        Daemon::new(&self.1, Purpose::Serve, Some(self.0.path()))
    }

    /// Another one than any before.
    fn make(&self, tap: &str, number: u32) {
        let path = self.1.net_device(tap);
        let _ = fs::rename(&path, self.1.net_device(&format!("old{number}")));
        fs::create_dir_all(path).unwrap();
    }
}

/// One tick of a VM of this name, whose device has sent so much.
fn tick(continuity: &mut Daemon, name: &str, tap: &str, ifindex: u32, sent: u64) -> VmStats {
    let mut vms = vm(&[tap]);
    vms.vms[0].name = name.into();
    let mut batch = batch(&[(tap, device(ifindex, sent, 0))], &[(tap, ebpf(ifindex, sent, 0))]);
    batch.processes.insert(7, ProcessReading { start_ticks: Some(500), ..ProcessReading::default() });
    present(&vms, &batch, continuity).remove(0)
}

fn shown(vm: &VmStats) -> (Option<u64>, Option<u64>) {
    (vm.nics[0].tx.bytes, vm.nics[0].with_earlier().tx.bytes)
}

#[test]
fn an_older_device_has_no_beginning() {
    let lab = Lab::new();
    lab.make("t", 0);
    let mut daemon = lab.daemon();
    tick(&mut daemon, "a", "other", 9, 0);
    let late = tick(&mut daemon, "a", "t", 3, 1000);
    assert!(late.nics[0].start_time.is_some() && late.nics[0].since.device.is_none(), "{late:?}");
    lab.make("t", 1);
    let vm = tick(&mut daemon, "a", "new", 4, 10);
    assert!(vm.nics[0].since.device.is_none(), "nobody can tell it from others");
    lab.make("newer", 2);
    let vm = tick(&mut daemon, "a", "newer", 5, 10);
    assert!(vm.nics[0].since.device.is_some() && vm.nics[0].since.ebpf >= vm.nics[0].since.device);
}

#[test]
fn a_series_of_another_name_has_no_beginning() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    tick(&mut daemon, "a", "other", 9, 0);
    lab.make("t", 0);
    let vm = tick(&mut daemon, "a", "t", 3, 10);
    assert!(vm.since.process.is_some() && vm.since.cpu_wait > vm.since.process);
    assert!(vm.nics[0].since.device.is_some());
    for name in ["b", "a"] {
        let vm = tick(&mut daemon, name, "t", 3, 20);
        assert_eq!((vm.since, vm.nics[0].since), (VmSince::default(), NicSince::default()), "{name}");
    }
}

#[test]
fn a_device_that_is_renamed_has_no_beginning() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    tick(&mut daemon, "a", "other", 9, 0);
    lab.make("t", 0);
    assert!(tick(&mut daemon, "a", "t", 3, 10).nics[0].since.device.is_some());
    fs::rename(lab.1.net_device("t"), lab.1.net_device("u")).unwrap();
    for _ in 0..2 {
        let vm = tick(&mut daemon, "a", "u", 3, 20);
        assert_eq!((vm.nics[0].since, shown(&vm).1), (NicSince::default(), Some(20)));
    }
}

#[test]
fn a_remade_and_renamed_device_has_no_beginning() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    tick(&mut daemon, "a", "other", 9, 0);
    lab.make("t", 0);
    tick(&mut daemon, "a", "t", 3, 70);
    lab.make("t", 1);
    assert_eq!(shown(&tick(&mut daemon, "a", "t", 4, 10)).1, Some(80));
    for (from, to, sent) in [("t", "u", 11), ("u", "t", 12)] {
        fs::rename(lab.1.net_device(from), lab.1.net_device(to)).unwrap();
        let vm = tick(&mut daemon, "a", to, 4, sent);
        assert_eq!((vm.nics[0].since, shown(&vm).1), (NicSince::default(), Some(70 + sent)));
    }
    let next = tick(&mut lab.daemon(), "a", "t", 4, 13);
    assert_eq!((next.nics[0].since.device, shown(&next).1), (None, Some(83)));
}

#[test]
fn without_pins_the_next_daemon_counts_anew() {
    let lab = Lab::new();
    let counts = |continuity: &mut Daemon, ifindex, sent, packets, since| {
        let mut counted = ebpf(ifindex, sent, 0);
        (counted.2.counters.ingress.packets, counted.2.since) = (packets, since);
        let batch = batch(&[("t", device(ifindex, sent, 0))], &[("t", counted)]);
        let nic = present(&vm(&["t"]), &batch, continuity).remove(0).nics.remove(0);
        (nic.with_earlier().ebpf.map(|ebpf| ebpf.tx.packets), nic.since.ebpf)
    };
    let mut daemon = lab.daemon();
    lab.make("t", 0);
    assert_eq!(counts(&mut daemon, 3, 1000, 10, Some(1e10)), (Some(10), Some(1e10)));
    lab.make("t", 1);
    assert_eq!(counts(&mut daemon, 4, 500, 5, Some(2e10)), (Some(15), Some(1e10)));
    assert_eq!(counts(&mut lab.daemon(), 4, 600, 6, None), (Some(16), Some(1e10)), "with pins");
    assert_eq!(counts(&mut lab.daemon(), 4, 700, 0, Some(3e10)), (Some(0), Some(3e10)));
    assert_eq!(counts(&mut lab.daemon(), 4, 800, 1, None), (Some(1), Some(3e10)));
}

#[test]
fn a_series_goes_on_over_daemons() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    tick(&mut daemon, "a", "other", 9, 0);
    lab.make("t", 0);
    let first = tick(&mut daemon, "a", "t", 3, 50);
    lab.make("t", 1);
    let second = tick(&mut daemon, "a", "t", 4, 7);
    assert_eq!((shown(&first), shown(&second)), ((Some(50), Some(50)), (Some(7), Some(57))));
    assert_eq!(second.nics[0].since.device, first.nics[0].since.device);
    let next = tick(&mut lab.daemon(), "a", "t", 4, 8);
    assert_eq!((shown(&next), next.nics[0].since.device), ((Some(8), Some(58)), first.nics[0].since.device));
    lab.make("t", 2);
    let unseen = tick(&mut lab.daemon(), "a", "t", 5, 3);
    assert_eq!((shown(&unseen), unseen.nics[0].since.device), ((Some(3), Some(3)), None), "it begins anew");
}

#[test]
fn a_series_has_no_other_vms_counts() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    lab.make("t", 0);
    tick(&mut daemon, "a", "t", 3, 50);
    let other = vm_named("b", &["t"]);
    let batch = batch(&[("t", device(3, 70, 0))], &[]);
    assert_eq!(shown(&present(&other, &batch, &mut daemon)[0]), (Some(20), Some(20)));
    assert_eq!(shown(&tick(&mut daemon, "a", "t", 3, 75)), (Some(5), Some(55)), "and back");
}
