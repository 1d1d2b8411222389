//! Many concurrent scrapes of a large snapshot take bounded memory.

use std::io::Write;
use std::net::TcpStream;

use vm_metrics_testkit::tenant::Action;
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::pace::Pace;
use super::user::{NEIGHBOUR, idle_argv};
use crate::isolation::isolated;

const FAKES: usize = 200;

const PROTOBUF: &str =
    "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n";

/// 40 scrapes of each format and 40 compressed ones stay unread over several ticks. `Pace` checks the memory after
/// each.
#[test]
fn unread_scrapes_take_little_memory() {
    isolated("hostile::scrapes_at_once::unread_scrapes_take_little_memory", || {
        let scene = Scene::new();
        let mut victim = scene.victim("11111111-1111-4111-8111-111111111111", "vmt0");
        let mut neighbour = scene.tenant_of(NEIGHBOUR, "tenant", &[], Vec::new());
        // Long names make long responses.
        let name = format!("guest={}{{n}}", "n".repeat(200));
        let (program, argv) = (scene.idle_program("qemu-system-x86_64"), idle_argv(&["-name", &name]));
        neighbour.perform(&Action::Spawn { program, argv, count: FAKES }).unwrap();
        let daemon = scene.daemon("");
        let shown = |metrics: &vm_metrics_testkit::metrics_text::Metrics| {
            (metrics.samples("vm_running").count() > FAKES)
                .then(|| metrics.value("process_resident_memory_bytes", &[]))
        };
        let before = daemon.wait_for(SOON, "all fakes", shown).unwrap().unwrap();
        let body = daemon.scrape().unwrap().len() as f64;
        let pace = Pace::of(&daemon);
        let address = daemon.address();
        let mut scraper = scene.tenant_of(NEIGHBOUR, "scraper", &[], Vec::new());
        let mut attacker = scene.attacker("tenant", &[]);
        for accept in ["", PROTOBUF, "Accept-Encoding: gzip\r\n"] {
            let text = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n");
            // The kernel buffers some MB of each response, so each connection asks for many.
            let text = text.repeat(40);
            for _ in 0..3 {
                attacker.perform(&Action::Connect { address, text: text.clone(), count: 10 }).unwrap();
                // Root opens such a connection as well.
                let mut own = TcpStream::connect(address).unwrap();
                own.write_all(text.as_bytes()).unwrap();
                pace.assert_kept(&daemon, 2, || {
                    victim.work(2);
                    let status = scraper.perform(&Action::Get { address, path: "/metrics".to_owned() });
                    assert_eq!(status.unwrap(), 200);
                });
            }
        }
        victim.assert_exact(&daemon);
        let after = daemon.metrics().unwrap().value("process_resident_memory_bytes", &[]).unwrap();
        let grown = (after - before) / body;
        assert!(grown < 28.0, "40 unread scrapes take {grown} times the {body} bytes of one");
    });
}
