//! TAPs in a namespace, and a manager that reads them in ticks.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use vm_metrics::Config;
use vm_metrics::Manager;
use vm_metrics::Purpose;
use vm_metrics::app::App;
use vm_metrics::{EbpfStats, NicSource, NicStats};
use vm_metrics_testkit::netns::NetNs;
use vm_metrics_testkit::packet_socket::PacketSocket;
use vm_metrics_testkit::skip::skip_part;
use vm_metrics_testkit::tap::{Tap, TapOptions};

/// Returns the attach methods of this kernel, and reports missing ones. All methods must count alike.
pub(crate) fn ways() -> Vec<&'static str> {
    match tcx() {
        Ok(()) => vec!["tcx", "clsact"],
        Err(reason) => {
            skip_part("by TCX", &reason);
            vec!["clsact"]
        }
    }
}

/// Asks the kernel for TCX, not its version; the error is the reason.
pub(crate) fn tcx() -> Result<(), String> {
    let answer = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    let because = |error: &dyn Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    answer.map(drop).map_err(|error| format!("TCX came with Linux 6.6: BPF_PROG_QUERY: {}", because(&error)))
}

/// Drop order: the manager stops before its devices go.
pub(crate) struct Lab {
    manager: Manager,
    pub(crate) taps: Vec<Tap>,
    _namespace: NetNs,
}

impl Lab {
    /// Makes one VM per TAP, `vmt0`, `vmt1`, …. A first tick attaches the programs.
    pub(crate) fn new(taps: usize, options: TapOptions) -> Self {
        Self::attached_by("auto", taps, options)
    }

    /// Sets `attach = "<way>"` in the configuration.
    pub(crate) fn attached_by(way: &str, taps: usize, options: TapOptions) -> Self {
        let mut lab = Self::without_tick(way, taps, options);
        lab.tick();
        lab
    }

    pub(crate) fn without_tick(way: &str, taps: usize, options: TapOptions) -> Self {
        Self::managed(taps, options, |names| manager_for(way, names))
    }

    pub(crate) fn managed(
        taps: usize,
        options: TapOptions,
        manager: impl FnOnce(&[&str]) -> Manager,
    ) -> Self {
        let namespace = NetNs::enter().unwrap();
        let taps: Vec<Tap> =
            (0..taps).map(|i| Tap::create_up(&format!("vmt{i}"), options).unwrap()).collect();
        let names: Vec<&str> = taps.iter().map(Tap::name).collect();
        let manager = manager(&names);
        Self { manager, taps, _namespace: namespace }
    }

    /// Makes a tick and returns the published NICs.
    pub(crate) fn tick(&mut self) -> Vec<NicStats> {
        nics(&mut self.manager)
    }

    /// Makes a tick and returns the only NIC, which eBPF must count.
    pub(crate) fn tick_one(&mut self) -> (NicStats, EbpfStats) {
        let nic = self.tick().remove(0);
        assert_eq!(nic.source, NicSource::Ebpf, "{nic:?}");
        let ebpf = nic.ebpf.unwrap();
        (nic, ebpf)
    }

    /// Sends a frame from the guest.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.taps[0].write_frame(frame).unwrap();
    }

    /// Offers a frame to the guest, which does not read it.
    pub(crate) fn offer(&self, frame: &[u8]) {
        PacketSocket::bind(self.taps[0].name()).unwrap().send(frame).unwrap();
    }

    /// Reads all frames that wait for the guest.
    pub(crate) fn drain(&self) {
        let mut buffer = vec![0; 128 << 10];
        while self.taps[0].read_frame(&mut buffer).unwrap().is_some() {}
    }

    /// Drops the manager; the TAPs stay.
    pub(crate) fn forget_the_manager(&mut self) {
        self.manager = manager_for("auto", &[]);
    }
}

/// Makes a manager with one VM per TAP, without processes and without retention.
pub(crate) fn manager_for(way: &str, taps: &[&str]) -> Manager {
    manager_with(taps, &format!("retention = \"0s\"\n[readers.tap_ebpf]\nattach = \"{way}\"\npin = false\n"))
}

/// Makes such a manager with these tables in its configuration.
pub(crate) fn manager_with(taps: &[&str], tables: &str) -> Manager {
    let mut config = format!("{tables}\n[sources.proc_scan]\nenabled = false\n");
    for tap in taps {
        config.push_str(&format!("[[sources.static_list.vms]]\nid = \"{tap}\"\ntaps = [\"{tap}\"]\n"));
    }
    manager_of(&config)
}

/// Makes a manager with this configuration.
pub(crate) fn manager_of(config: &str) -> Manager {
    let config = Config::parse(Path::new("lab.toml"), config).unwrap();
    App::new(config).unwrap().into_manager(Purpose::Serve).unwrap()
}

pub(crate) fn nics(manager: &mut Manager) -> Vec<NicStats> {
    manager.collect().vms.iter().flat_map(|vm| vm.nics.clone()).collect()
}

/// Returns the number of our programs on a device of this namespace.
pub(crate) fn attached_programs(device: &str) -> usize {
    // A kernel without TCX has no such query.
    let of =
        |direction| SchedClassifier::query_tcx(device, direction).map_or(0, |(_, programs)| programs.len());
    let links = of(TcAttachType::Ingress) + of(TcAttachType::Egress);
    let filters = |direction| {
        let output = Command::new("tc").args(["filter", "show", "dev", device, direction]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().matches("handle 0x766").count()
    };
    links + filters("ingress") + filters("egress")
}
