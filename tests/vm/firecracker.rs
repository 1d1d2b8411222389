//! A real Firecracker, with and without its jailer.
//!
//! Its guest halts, but the configuration is complete.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use serde_json::Value;
use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::firecracker::{self, Firecracker, JAILED_USER, kvm};
use vm_metrics_testkit::frames::Frame;
use vm_metrics_testkit::link::Link;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packages::ensure_debian;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip;
use vm_metrics_testkit::wait::{SOON, wait_until};

use crate::snapshot::OneShot;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");
const NO_EBPF: &str = "[readers.tap_ebpf]\nenabled = false\n";
const MIB: u64 = 1 << 20;

/// Health covers all Firecrackers of this machine, so one test runs at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Prepares a test; `None` skips it.
fn prepare() -> Option<MutexGuard<'static, ()>> {
    if let Err(error) = kvm() {
        skip(&format!("{error:#}"));
        return None;
    }
    firecracker::fetch().unwrap();
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn allocated(vm: &Value) -> (Option<u64>, Option<u64>) {
    (vm["allocated_vcpus"].as_u64(), vm["allocated_memory_bytes"].as_u64())
}

fn taps(vm: &Value) -> Vec<(&str, Option<u64>)> {
    let nics = vm["nics"].as_array().unwrap();
    nics.iter().map(|nic| (nic["device"].as_str().unwrap(), nic["netns"].as_u64())).collect()
}

#[test]
fn a_firecrackers_api_gives_its_configuration() {
    let Some(_one) = prepare() else { return };
    let _namespace = NetNs::enter().unwrap();
    let firecracker = Firecracker::start("fc-plain").unwrap();
    let shot = OneShot::with(NO_EBPF);
    firecracker.configure(2, 64, "vmfc0").unwrap();
    let vm = shot.vm(firecracker.pid()).unwrap();
    assert_eq!(vm["instance_id"], "fc-plain");
    assert_eq!(allocated(&vm), (None, None), "the sizes may still change before the start");
    assert_eq!(vm["state"], "not-started");
    firecracker.start_guest().unwrap();
    let vm = shot.vm(firecracker.pid()).unwrap();
    assert_eq!((allocated(&vm), taps(&vm)), ((Some(2), Some(64 * MIB)), vec![("vmfc0", None)]));
    let vcpus: Vec<_> = vm["vcpus"].as_array().unwrap().iter().map(|vcpu| vcpu["vcpu"].as_u64()).collect();
    assert_eq!((&vm["state"], vcpus), (&"running".into(), vec![Some(0), Some(1)]));
    assert!(shot.health("firecracker").contains("healthy, 1 VM"), "{}", shot.health("firecracker"));

    firecracker.pause().unwrap();
    assert_eq!(shot.vm(firecracker.pid()).unwrap()["state"], "paused");

    firecracker.signal(Signal::STOP).unwrap();
    let vm = shot.vm(firecracker.pid()).unwrap();
    let by_kvm = (Some(2), None);
    assert_eq!((allocated(&vm), taps(&vm)), (by_kvm, vec![("vmfc0", None)]), "it hangs");
    let health = shot.health("firecracker");
    assert!(health.contains("degraded") && health.contains("no answer within 200 ms"), "{health}");
    let pid = firecracker.pid();
    drop(firecracker);
    wait_until(SOON, "its end", || Ok(shot.vm(pid).is_none().then_some(()))).unwrap();
}

/// The pid file of the jailer identifies the VM.
#[test]
fn a_jailed_firecracker_is_asked_in_its_chroot() {
    let Some(_one) = prepare() else { return };
    ensure_debian(&["iproute2"]).unwrap();
    let _namespace = NetNs::enter().unwrap();
    let (netns, inode, host) = {
        let namespace = NetNs::enter().unwrap();
        let mut ip = Command::new("ip");
        ip.args(["tuntap", "add", "vmfc1", "mode", "tap", "user", &JAILED_USER.to_string()]);
        assert!(ip.status().unwrap().success());
        Link::named("vmfc1").up().unwrap();
        let netns = File::open("/proc/thread-self/ns/net").unwrap();
        (netns, namespace.inode(), PacketSocket::bind("vmfc1").unwrap())
    };
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
    let firecracker = Firecracker::start_jailed("jailed-1", Path::new(&path)).unwrap();
    firecracker.configure(1, 96, "vmfc1").unwrap();
    firecracker.start_guest().unwrap();
    let shot = OneShot::with(NO_EBPF);
    // On a busy machine a later snapshot reads the process of an ordinary user.
    let vm = wait_until(SOON, "the VM", || Ok(shot.vm(firecracker.pid()))).unwrap();
    assert_eq!((&vm["instance_id"], &vm["hypervisor"]), (&"jailed-1".into(), &"firecracker".into()));
    assert_eq!((allocated(&vm), taps(&vm)), ((Some(1), Some(96 * MIB)), vec![("vmfc1", Some(inode))]));
    assert_eq!(vm["vcpus"].as_array().unwrap().len(), 1);
    is_counted_there(&inode.to_string(), &host);

    let pid_file = firecracker.pid_file();
    let described = format!(
        "{NO_EBPF}[[sources.static_list.vms]]\nid = \"web\"\npid_file = {pid_file:?}\nproject = \"acme\"\n"
    );
    let vm = OneShot::with(&described).vm(firecracker.pid()).unwrap();
    assert_eq!((&vm["instance_id"], &vm["project"]), (&"web".into(), &"acme".into()));
    assert_eq!((allocated(&vm), taps(&vm)), ((Some(1), Some(96 * MIB)), vec![("vmfc1", Some(inode))]));
}

/// Checks the eBPF counts on the other side of the jail.
fn is_counted_there(netns: &str, host: &PacketSocket) {
    let daemon = Daemon::start(Path::new(BINARY), &["--interval", "100ms"]).unwrap();
    let jailed = [("instance_id", "jailed-1"), ("netns", netns)];
    let by_ebpf = [("instance_id", "jailed-1"), ("netns", netns), ("source", "ebpf")];
    let counted = |metrics: &Metrics| metrics.value("vm_network_source_info", &by_ebpf);
    daemon.wait_for(SOON, "the programs on its TAP", counted).unwrap();
    let offered = |metrics: &Metrics| metrics.value("vm_network_rx_offered_bytes_total", &jailed);
    let before = offered(&daemon.metrics().unwrap()).unwrap();
    let frame = Frame::to_guest().udp4(300);
    (0..5).for_each(|_| host.send(&frame).unwrap());
    let five = |metrics: &Metrics| (offered(metrics)? == before + 5.0 * frame.len() as f64).then_some(());
    daemon.wait_for(SOON, "five frames", five).unwrap();
}

/// The daemon trusts the record only while its pid is a hypervisor that runs this VM.
#[test]
fn a_hypeman_record_needs_its_own_hypervisor() {
    let Some(_one) = prepare() else { return };
    let _namespace = NetNs::enter().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let guest = dir.path().join("guests/tz4a98xx");
    fs::create_dir_all(&guest).unwrap();
    let record = |pid: u32| {
        let text = format!(
            r#"{{"Id": "tz4a98xx", "Name": "web", "Size": 67108864, "HotplugSize": 67108864, "Vcpus": 2,
                "NetworkEnabled": true, "HypervisorPID": {pid}, "SocketPath": "/run/api.sock"}}"#
        );
        fs::write(guest.join("metadata.json"), text).unwrap();
    };
    let shot = OneShot::with(&format!("{NO_EBPF}[sources.hypeman]\ndata_dir = {:?}\n", dir.path()));
    let firecracker = Firecracker::start("tz4a98xx").unwrap();
    firecracker.configure(2, 64, "hype-tz4a98xx").unwrap();
    record(firecracker.pid());
    let vm = shot.vm(firecracker.pid()).unwrap();
    assert_eq!((&vm["instance_id"], &vm["instance_name"]), (&"tz4a98xx".into(), &"web".into()));
    assert_eq!((allocated(&vm), taps(&vm)), ((Some(2), Some(128 * MIB)), vec![("hype-tz4a98xx", None)]));

    // After a restart of the host, the pid belongs to another VM.
    drop(firecracker);
    let other = Firecracker::start("another").unwrap();
    record(other.pid());
    let vm = shot.vm(other.pid()).unwrap();
    assert_eq!((&vm["instance_id"], &vm["instance_name"]), (&"another".into(), &"another".into()));
    assert!(shot.health("hypeman").contains("healthy, 0 VMs"), "{}", shot.health("hypeman"));
}
