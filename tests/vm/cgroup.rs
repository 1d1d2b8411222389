//! Real cgroups (v2) in a guest: published values equal the kernel's files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vm_metrics_testkit::guest::{Contents, Guest, GuestConfig, GuestImage, Kernel};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::skip::skip_part;
use vm_metrics_testkit::wait::wait_until;

const BINARY: &str = env!("CARGO_BIN_EXE_vm-metrics");
const IN_GUEST: &str = "/bin/vm-metrics";
const WEB: &str = "/sys/fs/cgroup/web";

/// Without KVM the daemon is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest with two busy control groups, and a daemon that takes these for VMs.
struct Lab {
    guest: Guest,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stripped = dir.path().join("vm-metrics");
        let strip = Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .args([&stripped, Path::new(BINARY)])
            .status();
        assert!(strip.unwrap().success(), "strip {BINARY}");
        let mut contents = Contents::default();
        contents.add_program_at(Path::new(IN_GUEST), &stripped).unwrap();
        let image = GuestImage::build(&Kernel::of_host().unwrap(), &contents).unwrap();
        let mut config = GuestConfig::new("groups", Vec::new()).unwrap();
        (config.memory_mib, config.vcpus) = (512, 2);
        let mut lab = Self { guest: image.boot(config).unwrap() };
        lab.run("mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir /sys/fs/cgroup/web /sys/fs/cgroup/db");
        lab.run("echo '+cpu +memory' >/sys/fs/cgroup/cgroup.subtree_control");
        let vms = ["web", "db"].map(|name| {
            let pid = lab.run(&format!(
                "(while :; do :; done) >/dev/null 2>&1 & echo $! >/sys/fs/cgroup/{name}/cgroup.procs; echo $!"
            ));
            format!("[[sources.static_list.vms]]\\nid = \"{name}\"\\npid = {}\\n", pid.trim())
        });
        let config = "[sources.proc_scan]\\nenabled = false\\n[readers.cgroup]\\ninterval = \"1s\"\\n\
            [exporters.prometheus]\\ngroups = [\"cgroup\"]\\n";
        lab.run(&format!("printf '{config}{}' >/tmp/config.toml", vms.concat()));
        lab.run(&format!("{IN_GUEST} serve --no-ebpf --config /tmp/config.toml >/tmp/log 2>&1 &"));
        lab
    }

    fn run(&mut self, command: &str) -> String {
        self.guest.run(command).unwrap()
    }

    fn metrics(&mut self) -> Option<Metrics> {
        let text = self.guest.run("wget -qO- http://127.0.0.1:10464/metrics").ok()?;
        Some(Metrics::parse(&text).unwrap())
    }

    /// Waits until the metric exists and satisfies a condition.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let found = wait_until(PATIENCE, what, || Ok(self.metrics().filter(|metrics| wanted(metrics))));
        found.unwrap_or_else(|error| panic!("{error:#}; the daemon's log: {}", self.run("cat /tmp/log")))
    }

    /// Returns the number of a key in a file of the group.
    fn key(&mut self, file: &str, key: &str) -> f64 {
        self.run(&format!("sed -n 's/^{key}[ =]//p' {WEB}/{file}")).trim().parse().unwrap()
    }
}

fn of(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.value(name, &[("instance_id", "web")])
}

#[test]
fn a_throttled_vm_matches_the_kernel() {
    const THROTTLED: &str = "vm_cgroup_cpu_throttled_seconds_total";
    let mut lab = Lab::new();
    let free = lab.wait_for("the groups", |metrics| of(metrics, THROTTLED).is_some());
    assert_eq!(of(&free, THROTTLED), Some(0.0), "it has no limit yet");
    assert_eq!(of(&free, "vm_cgroup_memory_limit_bytes"), None);

    lab.run(&format!("echo '20000 100000' >{WEB}/cpu.max"));
    lab.wait_for("time without a CPU", |metrics| of(metrics, THROTTLED) > Some(1.0));
    lab.run(&format!("echo 1 >{WEB}/cgroup.freeze"));
    lab.run(&format!("until grep -q 'frozen 1' {WEB}/cgroup.events; do sleep 0.1; done"));
    // The kernel ends its periods a moment later.
    let equal = || {
        let kernel = ["nr_periods", "nr_throttled", "throttled_usec"].map(|key| lab.key("cpu.stat", key));
        let shown = ["vm_cgroup_cpu_periods_total", "vm_cgroup_cpu_throttled_periods_total", THROTTLED];
        let Some(metrics) = lab.metrics() else { return Ok(None) };
        let [periods, throttled, seconds] = shown.map(|name| of(&metrics, name).unwrap_or_default());
        Ok(([periods, throttled, (seconds * 1e6).round()] == kernel).then_some(metrics))
    };
    let stopped = wait_until(PATIENCE, "the kernel's numbers", equal).unwrap();
    let other = stopped.value(THROTTLED, &[("instance_id", "db")]);
    assert_eq!(other, Some(0.0), "the other VM has no limit");

    if lab.guest.run(&format!("cat {WEB}/cpu.pressure")).is_ok() {
        let labels = [("instance_id", "web"), ("resource", "cpu"), ("kind", "some")];
        let pressure = stopped.value("vm_cgroup_pressure_seconds_total", &labels);
        assert!(pressure > Some(0.5), "{pressure:?}");
    } else {
        skip_part("pressure", "the kernel of the guest does not count it");
    }
}

#[test]
fn oom_kills_and_memory_limit_match_the_kernel() {
    const KILLS: &str = "vm_cgroup_oom_kills_total";
    let mut lab = Lab::new();
    lab.wait_for("the groups", |metrics| of(metrics, KILLS) == Some(0.0));
    lab.run(&format!("echo 16777216 >{WEB}/memory.max"));
    let hog = "head -c 64000000 /dev/zero | tail >/dev/null";
    lab.run(&format!("sh -c 'echo $$ >{WEB}/cgroup.procs; {hog}' >/dev/null 2>&1; true"));
    let kills = lab.key("memory.events", "oom_kill");
    assert!(kills >= 1.0, "the kernel has killed nothing");
    let killed = lab.wait_for("the kill", |metrics| of(metrics, KILLS) == Some(kills));
    assert_eq!(of(&killed, "vm_cgroup_memory_limit_bytes"), Some(16_777_216.0));
    assert!(of(&killed, "vm_cgroup_memory_bytes") > Some(0.0));

    // With a second VM in it, the group's numbers belong to neither.
    lab.run(&format!("cat /sys/fs/cgroup/db/cgroup.procs >{WEB}/cgroup.procs"));
    let absent =
        |metrics: &Metrics| ["web", "db"].map(|id| metrics.value(KILLS, &[("instance_id", id)])) == [None; 2];
    lab.wait_for("nothing of a shared group", absent);
}
