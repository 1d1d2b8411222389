//! The README's service under a real systemd: install, kill, reload, stop.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use anyhow::Result;
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::netns::enter_of;
use vm_metrics_testkit::packages::ensure_debian;
use vm_metrics_testkit::prometheus::Prometheus;
use vm_metrics_testkit::systemd::Systemd;
use vm_metrics_testkit::wait::{SOON, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");
const FRAME: [u8; 200] = [0xab; 200];

/// A QEMU without a disk, which writes input of a UDP port to its TAP.
const VM: &str = "systemd-run --unit=guest qemu-system-x86_64 -nodefaults -display none -name billed \
    -netdev tap,id=tap,ifname=vmservice0,script=no,downscript=no -netdev hubport,id=one,hubid=0,netdev=tap \
    -netdev dgram,id=udp,local.type=inet,local.host=127.0.0.1,local.port=1100,remote.type=inet,remote.host=127.0.0.1,remote.port=1101 \
    -netdev hubport,id=two,hubid=0,netdev=udp";

/// A host with the README's commands.
struct Host {
    systemd: Systemd,
    sent: u64,
}

impl Host {
    fn new() -> Self {
        ensure_debian(&["curl", "qemu-system-x86"]).unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let binary = Path::new(BINARY);
        let systemd = Systemd::boot(&[project, binary.parent().unwrap()]).unwrap();
        let host = Self { systemd, sent: 0 };
        // The directory has the files that `cargo xtask build` makes.
        let project = project.display();
        host.must(&format!("mkdir -p /checkout/target/release && ln -s {project}/deploy /checkout/deploy"));
        host.must(&format!("ln -s {BINARY} /checkout/target/release/vm-metrics"));
        host
    }

    /// Runs the README's lines that make the service, which shows all groups of series.
    fn install(&self) {
        let readme = readme();
        let configuration = readme.lines().find(|line| line.starts_with("vm-metrics config print-default >"));
        let service = block(&readme, "console").lines().map(|line| line.strip_prefix("# ").unwrap());
        let groups = "sed -i 's/^groups = .*/groups = [\"all\"]/' vm-metrics.toml";
        for line in configuration.into_iter().chain([groups]).chain(service) {
            self.must(&format!("cd /checkout; PATH=$PATH:/checkout/target/release; {line}"));
        }
    }

    fn start_vm(&self) {
        self.must(VM);
        self.wait_for("the TAP", || self.systemd.must("ip link set vmservice0 up").is_ok().then_some(()));
    }

    /// Sends a frame from the VM.
    fn send(&mut self) {
        let _there = enter_of(self.systemd.pid()).unwrap();
        UdpSocket::bind("127.0.0.1:1101").unwrap().send_to(&FRAME, "127.0.0.1:1100").unwrap();
        self.sent += 1;
    }

    /// Waits until all frames of the VM are published and counted by eBPF.
    fn wait_until_counted(&self) {
        let bytes = self.sent * FRAME.len() as u64;
        self.wait_for("all frames", || {
            let metrics = self.metrics().ok()?;
            let value = |name| metrics.value(name, &[("instance_name", "billed")]);
            let by_ebpf = metrics.value("vm_network_source_info", &[("source", "ebpf")]) == Some(1.0);
            (by_ebpf && value("vm_network_tx_bytes_total") == Some(bytes as f64)).then_some(())
        });
    }

    fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.systemd.must("curl --silent --fail http://127.0.0.1:10464/metrics")?)
    }

    fn value(&self, name: &str) -> f64 {
        self.metrics().unwrap().value(name, &[]).unwrap()
    }

    /// Returns a property of the service.
    fn property(&self, name: &str) -> String {
        self.must(&format!("systemctl show --value --property={name} vm-metrics")).trim().to_owned()
    }

    fn wait_for<T>(&self, what: &str, poll: impl Fn() -> Option<T>) -> T {
        wait_until(SOON, what, || Ok(poll())).unwrap_or_else(|error| {
            let log =
                self.systemd.must("journalctl --no-pager --unit=vm-metrics --unit=guest --unit=prometheus");
            panic!("{error:#}\n{}", log.unwrap_or_default())
        })
    }

    fn must(&self, line: &str) -> String {
        self.systemd.must(line).unwrap()
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap()
}

/// Returns the only code block of this language.
fn block<'r>(readme: &'r str, language: &str) -> &'r str {
    let opening = format!("\n```{language}\n");
    let mut blocks = readme.split(&opening).skip(1);
    let block = blocks.next().unwrap().split_once("```").unwrap().0;
    assert!(blocks.next().is_none(), "more than one block of {language}");
    block
}

#[test]
fn readme_scrape_config_finds_the_daemon() {
    let prometheus = Prometheus::prepare().unwrap();
    let host = Host::new();
    host.install();
    let configuration = format!("global: {{ scrape_interval: 1s }}\n{}", block(&readme(), "yaml"));
    host.must(&format!("cat > /etc/prometheus.yml << 'END'\n{configuration}END"));
    let arguments = "--config.file=/etc/prometheus.yml --storage.tsdb.path=/run/prometheus --web.listen-address=127.0.0.1:9090";
    host.must(&format!("systemd-run --unit=prometheus {} {arguments}", prometheus.program().display()));
    host.wait_for("a scrape", || {
        let query = "curl --silent --fail 'http://127.0.0.1:9090/api/v1/query?query=up{job=\"vm-metrics\"}==1' --globoff";
        let answer = host.systemd.must(query).ok()?;
        answer.contains(r#""__name__":"up""#).then_some(())
    });
}

#[test]
fn readme_service_survives_kill_and_reload() {
    let mut host = Host::new();
    host.install();
    host.start_vm();
    host.wait_for("the programs on the TAP", || {
        host.metrics().ok()?.value("vm_network_source_info", &[("source", "ebpf")])
    });
    host.send();
    host.wait_until_counted();
    assert_eq!(host.property("User"), "vm-metrics");
    assert_eq!(
        host.must("stat -c %U /proc/$(systemctl show --value -p MainPID vm-metrics)").trim(),
        "vm-metrics"
    );

    // The service has no reload, so the signal must change nothing.
    let first = host.property("MainPID");
    host.must("systemctl kill --signal=HUP vm-metrics");
    host.send();
    host.wait_until_counted();
    assert_eq!(host.property("MainPID"), first);

    host.must("systemctl kill --signal=KILL vm-metrics");
    host.send();
    host.wait_for("the next daemon", || (host.property("NRestarts") == "1").then_some(()));
    host.wait_until_counted();
    assert_eq!(host.value("vm_exporter_reader_pinned"), 1.0);
    assert_eq!(host.value("vm_network_tx_gap_packets_total"), 0.0);
    // Only a count since the attach proves that counting continued.
    assert_eq!(host.value("vm_network_tx_wire_packets_total"), host.sent as f64);

    let log = host.must("journalctl --no-pager --unit=vm-metrics");
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(matches!(warnings[..], [line] if line.contains("SIGHUP")), "{warnings:#?}");
    host.must("systemctl stop vm-metrics");
    assert_eq!(host.property("Result"), "success");
}
