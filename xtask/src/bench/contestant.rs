//! The daemons of a run: one per choice of readers. Only one of them runs at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use vm_metrics_testkit::{
    daemon::{Daemon, GROUPS},
    http::{self, Response},
    process_cpu_time,
    wait::{SOON, wait_until},
};

use crate::command::output;

/// The daemon's own default is this number of TAPs.
const DEFAULT_NICS: u32 = 1024;

/// A daemon that was paused looks at all VMs again, within a few ticks.
const SETTLE: Duration = Duration::from_secs(3);

/// A slow attachment takes about this time.
const ATTACH: Duration = Duration::from_millis(400);

/// The bpffs that only this run sees.
const PINS: &str = "/sys/fs/bpf";

/// A choice of binary and configuration.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The last part of the keys of its figures.
    pub name: &'static str,
    /// Lines of its configuration.
    settings: &'static str,
    is_other_build: bool,
}

const DEFAULT: Kind = Kind { name: "default", settings: "", is_other_build: false };
const WITH_TASK_ITER: Kind =
    Kind { name: "task_iter", settings: "[readers.task_iter]\nenabled = true\n", is_other_build: false };
const OTHER_BUILD: Kind = Kind { name: "other", settings: "", is_other_build: true };

/// The default, with pins that no other daemon finds.
pub const GROWTH: Kind = Kind { name: "growth", ..DEFAULT };

/// The default is first.
pub const KINDS: [Kind; 3] = [DEFAULT, WITH_TASK_ITER, OTHER_BUILD];

/// How daemons start in this run.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub binary: &'a Path,
    /// A daemon to compare with.
    pub other_build: Option<&'a Path>,
    pub dir: &'a Path,
    /// The largest number of TAPs in this run.
    pub nics: u32,
    /// The key `attach` of the programs.
    pub attach: &'static str,
}

/// A daemon; a drop ends it, and its programs stay pinned for the next of this name.
#[derive(Debug)]
pub struct Contestant {
    pub name: &'static str,
    /// The time from the start until it counted all TAPs.
    pub counted_after: Duration,
    interval: Duration,
    daemon: Daemon,
}

/// The part of `/api/v1/health` that the bench uses.
#[derive(Debug, Deserialize)]
pub struct Health {
    pub tick: u64,
    pub ticks_late: u64,
    pub tick_duration_seconds: f64,
    snapshot_age_seconds: f64,
    pub parts: Vec<Component>,
}

#[derive(Debug, Deserialize)]
pub struct Component {
    pub name: String,
    pub duration_seconds: Option<f64>,
    items: usize,
}

impl Health {
    /// Returns the time since the begin of the last tick.
    pub fn since_begin(&self) -> Duration {
        Duration::from_secs_f64(self.snapshot_age_seconds + self.tick_duration_seconds)
    }
}

impl Setup<'_> {
    /// Starts a daemon and waits until it counts all TAPs. `None` where the build has no reader of its settings, and
    /// without another build.
    pub fn start(&self, kind: Kind, interval: Duration, vms: u32) -> Result<Option<Contestant>> {
        let Kind { name, settings, is_other_build } = kind;
        let binary = if is_other_build { self.other_build } else { Some(self.binary) };
        let Some(binary) = binary else { return Ok(None) };
        let config = self.config(name);
        fs::write(&config, self.configuration(name, settings, interval)?)
            .with_context(|| format!("write {}", config.display()))?;
        let mut check = Command::new(binary);
        let checked =
            check.args(["config", "check"]).arg(&config).output().context("check a configuration")?;
        if !checked.status.success() && !settings.is_empty() {
            return Ok(None);
        }
        let start = Instant::now();
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        // The default, where the testkit would show all groups of series.
        command.envs(GROUPS.map(|name| (name, "[]")));
        let daemon = Daemon::start_command(command)?;
        let mut contestant = Contestant { name, counted_after: Duration::ZERO, interval, daemon };
        contestant.wait_until_all_are_counted(vms)?;
        contestant.counted_after = start.elapsed();
        Ok(Some(contestant))
    }

    /// Removes the programs of the daemons of this kind, which have ended.
    pub fn detach(&self, kind: Kind) -> Result<()> {
        let config = self.config(kind.name);
        output(Command::new(self.binary).args(["detach", "--config"]).arg(config)).map(drop)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.toml"))
    }

    fn configuration(&self, name: &str, settings: &str, interval: Duration) -> Result<String> {
        let state = self.dir.join(format!("state-{name}"));
        fs::create_dir_all(&state).with_context(|| format!("create {}", state.display()))?;
        let attach = self.attach;
        let nics = DEFAULT_NICS.max(self.nics.next_power_of_two());
        Ok(format!(
            "interval = \"{}ms\"\nstate_dir = {state:?}\n[http]\nsocket = \"\"\n\
             [readers.tap_ebpf]\nmax_nics = {nics}\nattach = {attach:?}\npin_dir = \"{PINS}/{name}\"\n{settings}",
            interval.as_millis()
        ))
    }
}

impl Contestant {
    fn wait_until_all_are_counted(&self, vms: u32) -> Result<()> {
        self.daemon.wait_until_ready()?;
        wait_until(SOON + ATTACH * vms, "programs on all TAPs", || {
            let components = self.health()?.parts;
            let counted = components.iter().find(|component| component.name == "tap_ebpf");
            Ok(counted.is_some_and(|counted| counted.items >= vms as usize).then_some(()))
        })
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Runs the work while this daemon runs, some ticks after the pause.
    pub fn in_turn<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.signal(Signal::CONT)?;
        thread::sleep(SETTLE);
        let result = work(self);
        self.pause()?;
        result
    }

    /// Returns the CPU time per tick in about this time.
    pub fn tick_cost(&self, window: Duration) -> Result<Duration> {
        // A window from the end of a tick has whole ticks only.
        let before = self.next_tick()?.tick;
        let start = self.cpu_time()?;
        thread::sleep(window);
        let used = self.cpu_time()? - start;
        let ticks = self.health()?.tick - before;
        ensure!(ticks > 0, "the daemon {} had no tick in {window:?}:\n{}", self.name, self.daemon.log());
        Ok(used / u32::try_from(ticks)?)
    }

    /// Waits for the end of a tick.
    pub fn next_tick(&self) -> Result<Health> {
        let tick = self.health()?.tick;
        self.wait_for_tick(tick + 1)
    }

    /// Whether no other tick has begun since the end of this one.
    pub fn is_between_ticks_since(&self, tick: u64) -> Result<bool> {
        let health = self.health()?;
        Ok(health.tick == tick && health.since_begin() < self.interval)
    }

    pub fn health(&self) -> Result<Health> {
        let response = self.daemon.get("/api/v1/health", None)?;
        serde_json::from_slice(&response.body).context("read /api/v1/health")
    }

    pub fn scrape(&self, headers: &[(&str, &str)]) -> Result<Response> {
        let response = http::request_with(self.daemon.address(), "GET", "/metrics", headers)?;
        ensure!(response.status == 200, "GET /metrics: {}", response.status);
        Ok(response)
    }

    pub fn cpu_time(&self) -> Result<Duration> {
        process_cpu_time(self.daemon.pid()).context("the CPU time of the daemon")
    }

    fn wait_for_tick(&self, tick: u64) -> Result<Health> {
        wait_until(SOON + 3 * self.interval, "a tick", || {
            let health = self.health()?;
            Ok((health.tick >= tick).then_some(health))
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.daemon.pid().cast_signed()).context("a daemon without a pid")?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to the daemon {}", self.name))
    }
}
