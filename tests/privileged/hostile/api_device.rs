//! A fake Firecracker whose API names foreign devices.

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::link::{Link, ip};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::VICTIM;
use super::lab::{Scene, of_device};
use super::user::ATTACKER;
use crate::isolation::isolated;
use crate::lab::attached_programs;

/// The fake's vCPU count, which proves that the daemon read its API.
const VCPUS: f64 = 7.0;

#[test]
fn an_api_takes_no_tap_of_another_vm() {
    isolated("hostile::api_device::an_api_takes_no_tap_of_another_vm", || {
        let scene = Scene::new();
        // The fake is older than the victim: among equals the older one would win.
        let _older = fake(&scene, "older", "vmt0");
        let mut victim = scene.victim(VICTIM, "vmt0");
        victim.work(10);
        let daemon = scene.daemon("");
        wait_until_heard(&daemon, "older");
        victim.assert_exact(&daemon);
        let _younger = fake(&scene, "younger", "vmt0");
        wait_until_heard(&daemon, "younger");
        for _ in 0..20 {
            victim.work(10);
            victim.assert_exact(&daemon);
        }
    });
}

#[test]
fn an_api_puts_no_program_on_host_devices() {
    isolated("hostile::api_device::an_api_puts_no_program_on_host_devices", || {
        let scene = Scene::new();
        // This stands for the uplink of the host.
        ip(&["link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1"]).unwrap();
        ["uplink0", "uplink1"].iter().for_each(|end| Link::named(*end).up().unwrap());
        let mut victim = scene.victim(VICTIM, "vmt0");
        let _fakes = ["lo", "uplink0"].map(|device| fake(&scene, &format!("fake-{device}"), device));
        let daemon = scene.daemon_of_root("");
        for device in ["lo", "uplink0"] {
            wait_until_heard(&daemon, &format!("fake-{device}"));
            // The tick after the response reads the named devices.
            for _ in 0..5 {
                victim.work(3);
                victim.assert_exact(&daemon);
                let metrics = daemon.metrics().unwrap();
                assert_eq!(of_device(device, &metrics).next(), None, "{device} is shown");
                assert_eq!(attached_programs(device), 0, "a program is on {device}");
            }
        }
        assert_eq!(attached_programs("vmt0"), 2);
    });
}

fn fake(scene: &Scene, id: &str, device: &str) -> Tenant {
    let directory = scene.directory_of(ATTACKER, id);
    let socket = directory.join("api.sock");
    let mut fake = scene.attacker("firecracker", &["--id", id, "--api-sock", socket.to_str().unwrap()]);
    let instance =
        format!(r#"{{"id":"{id}","state":"Running","vmm_version":"1.13.0","app_name":"Firecracker"}}"#);
    let config = format!(
        r#"{{"machine-config":{{"vcpu_count":{VCPUS},"mem_size_mib":128}},"network-interfaces":[{{"iface_id":"eth0","host_dev_name":"{device}"}}]}}"#
    );
    let answers = vec![("/".to_owned(), instance), ("/vm/config".to_owned(), config)];
    fake.perform(&Action::ServeHttp { socket, answers }).unwrap();
    fake
}

fn wait_until_heard(daemon: &Daemon, id: &str) {
    let heard = |metrics: &Metrics| {
        let vcpus = metrics.value("vm_allocated_vcpus", &[("instance_id", id)])?;
        (vcpus == VCPUS).then_some(())
    };
    daemon.wait_for(SOON, &format!("the answer of {id}"), heard).unwrap();
}
