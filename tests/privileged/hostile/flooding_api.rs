//! VMM APIs with tens of thousands of interfaces delay no tick.

use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::tenant::{Action, Tenant};
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::pace::Pace;
use super::user::{ATTACKER, NEIGHBOUR};
use crate::isolation::isolated;

const VICTIM: &str = "33333333-3333-4333-8333-333333333333";

const RUNNING: &str = r#"{"id":"fake","state":"Running"}"#;

/// More interfaces than a VM may have.
const MANY: usize = 34_000;

/// The daemon reads at most so many interfaces.
const MAX_NICS: usize = 256;

/// Starts a Firecracker of this user whose API returns this configuration.
fn firecracker(scene: &Scene, uid: u32, id: &str, config: &str) -> Tenant {
    let socket = scene.directory_of(uid, id).join("api.sock");
    let mut vmm = scene.tenant_of(
        uid,
        "firecracker",
        &["--id", id, "--api-sock", socket.to_str().unwrap()],
        Vec::new(),
    );
    let answers = vec![("/".to_owned(), RUNNING.to_owned()), ("/vm/config".to_owned(), config.to_owned())];
    vmm.perform(&Action::ServeHttp { socket, answers }).unwrap();
    vmm
}

fn config(vcpus: u64, interfaces: usize) -> String {
    let interfaces: Vec<_> =
        (0..interfaces).map(|number| format!("{{\"host_dev_name\":\"t{number}\"}}")).collect();
    let interfaces = interfaces.join(",");
    format!(
        "{{\"machine-config\":{{\"vcpu_count\":{vcpus},\"mem_size_mib\":128}},\"network-interfaces\":[{interfaces}]}}"
    )
}

/// The API also claims an impossible allocation, which would become as many series.
#[test]
fn a_flood_of_interfaces_delays_nobody() {
    isolated("hostile::flooding_api::a_flood_of_interfaces_delays_nobody", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon_of_root("");
        let pace = Pace::of(&daemon);
        let flood = config(7, MANY);
        let _fakes: Vec<_> =
            (0..5).map(|number| firecracker(&scene, ATTACKER, &format!("fake{number}"), &flood)).collect();
        let _huge = firecracker(&scene, ATTACKER, "huge", &config(4_294_967_295, 1));
        let _modest = firecracker(&scene, NEIGHBOUR, "modest", &config(3, 1));
        let vcpus = |metrics: &Metrics, id: &str| metrics.value("vm_allocated_vcpus", &[("instance_id", id)]);
        let answered = |metrics: &Metrics| {
            let floods = (0..5).all(|number| vcpus(metrics, &format!("fake{number}")) == Some(7.0));
            (floods && vcpus(metrics, "modest") == Some(3.0)).then_some(())
        };
        daemon
            .wait_for(SOON, "the answers", answered)
            .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.log()));
        pace.assert_kept(&daemon, 15, || victim.work(2));
        victim.assert_exact(&daemon);
        let metrics = daemon.metrics().unwrap();
        let nics =
            metrics.samples("vm_network_interfaces").filter(|vm| vm.label("instance_id") == Some("fake0"));
        assert!(nics.map(|vm| vm.value).sum::<f64>() <= MAX_NICS as f64);
        assert_eq!(vcpus(&metrics, "huge"), None, "more vCPUs than a VM has");
    });
}

/// Half of them respond with other text, and the others do not listen.
#[test]
fn a_hundred_useless_sockets_delay_nobody() {
    isolated("hostile::flooding_api::a_hundred_useless_sockets_delay_nobody", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let daemon = scene.daemon_of_root("");
        let pace = Pace::of(&daemon);
        let mut fakes = Vec::new();
        for number in 0..100 {
            let id = format!("fake{number}");
            let socket = scene.directory_of(ATTACKER, &id).join("api.sock");
            let mut fake =
                scene.attacker("firecracker", &["--id", &id, "--api-sock", socket.to_str().unwrap()]);
            if number % 2 == 0 {
                fake.perform(&Action::ServeQmp { socket, answers: Vec::new() }).unwrap();
            }
            fakes.push(fake);
        }
        let _modest = firecracker(&scene, NEIGHBOUR, "modest", &config(3, 1));
        let asked = |metrics: &Metrics| metrics.value("vm_allocated_vcpus", &[("instance_id", "modest")]);
        daemon.wait_for(SOON, "the neighbour's answer", asked).unwrap();
        pace.assert_kept(&daemon, 15, || victim.work(2));
        victim.assert_exact(&daemon);
    });
}
