//! `cargo xtask bench`: measures the daemon beside plain reads of the same files.
//!
//! Stand-in VMs are real processes of four threads with a TAP each, in a network namespace of their own. All that is
//! compared runs in turns within one run, because times differ between machines and hours, and ratios hardly do.
//!
//! Everything ends with this process, even by SIGKILL: the kernel kills its children, and with the last of them goes
//! the namespace with its devices and mounts.

mod compare;
mod contestant;
mod docs;
mod figures;
mod fleet;
mod growth;
mod machine;
mod pace;
mod packets;
mod plain_reads;
mod reach;
mod readers;
mod report;
mod scrapes;
mod tick_cost;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use vm_metrics_testkit::netns::NetNs;

use self::{
    contestant::{Contestant, KINDS, Setup},
    figures::Figures,
    fleet::{Fleet, YOUTH},
    machine::Machine,
    plain_reads::PlainReads,
    reach::{RATIOS, Verdict},
    report::Run,
    tick_cost::{RATES, Rate},
};
use crate::{build, workspace::Workspace};

/// Enough for a few files of each of 10 000 stand-in VMs.
const OPEN_FILES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct Options {
    /// Number of stand-in VMs (1000).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..=10_000))]
    vms: Option<u32>,
    /// Number of rounds; the table has the medians (3).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// A short run for CI, which fails if a ratio is beyond its guard.
    #[arg(long)]
    quick: bool,
    /// Measure the growth up to 10 000 VMs.
    #[arg(long, conflicts_with = "quick")]
    growth: bool,
    /// Measure this build of the daemon, rather than a fresh one.
    #[arg(long, value_name = "BINARY")]
    daemon: Option<PathBuf>,
    /// Compare with another build of the daemon, in turns.
    #[arg(long, value_name = "BINARY")]
    other: Option<PathBuf>,
    /// Write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables into docs/performance.md.
    #[arg(long)]
    write_docs: bool,
    /// Measure nothing, and compare two files of --json.
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    compare: Option<Vec<PathBuf>>,
}

/// The size of a run.
#[derive(Debug)]
struct Plan {
    vms: u32,
    rounds: u32,
    /// The time of one measurement of ticks. Every 30 seconds the daemon looks closely at all processes: a longer time has
    /// its share of that.
    window: Duration,
    /// In CI, attaching by TCX to all TAPs would take longer than all else.
    attach: &'static str,
    /// Numbers of VMs for the growth: before the main part, and after it.
    sizes: (Vec<u32>, &'static [u32]),
}

impl Plan {
    fn new(options: &Options) -> Self {
        let Options { vms, rounds, quick, growth, .. } = options;
        let (seconds, attach) = if *quick { (3, "clsact") } else { (30, "auto") };
        let vms = vms.unwrap_or(1000);
        let before = if *quick { Vec::new() } else { growth::sizes(vms).to_vec() };
        let after = if *growth { growth::LARGE } else { &[] };
        let rounds = rounds.unwrap_or(3);
        Self { vms, rounds, window: Duration::from_secs(seconds), attach, sizes: (before, after) }
    }

    fn most_vms(&self) -> u32 {
        self.sizes.1.iter().copied().fold(self.vms, u32::max)
    }
}

pub fn bench(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some([one, other]) = options.compare.as_deref() {
        return compare::compare(one, other);
    }
    ensure!(geteuid().is_root(), "the bench makes TAP devices, and only root can");
    let daemon = match &options.daemon {
        Some(daemon) => daemon.clone(),
        None => build::build(workspace, &build::Options::default())?,
    };
    let start = Instant::now();
    let run = measure(workspace, (&daemon, options.other.as_deref()), &Plan::new(options))?;
    println!("{}", run.heading());
    report::tables(&run).iter().for_each(|table| println!("\n{}", table.text()));
    eprintln!("xtask: measured in {} s", start.elapsed().as_secs());
    if let Some(file) = &options.json {
        run.write(file)?;
    }
    if options.write_docs {
        docs::write(workspace, &run)?;
    }
    if options.quick { check_ratios(&run.figures) } else { Ok(()) }
}

/// Never looks at a time, because a busy machine would fail it.
fn check_ratios(figures: &Figures) -> Result<()> {
    let bad = RATIOS.iter().filter(|ratio| ratio.verdict(figures) == Verdict::TooLarge);
    let names: Vec<&str> = bad.map(|ratio| ratio.name).collect();
    ensure!(names.is_empty(), "beyond the guard: {}", names.join(", "));
    Ok(())
}

fn measure(workspace: &Workspace, builds: (&Path, Option<&Path>), plan: &Plan) -> Result<Run> {
    let machine = Machine::this()?;
    raise_open_files()?;
    let _namespace = NetNs::enter()?;
    hide_other_processes()?;
    let dir = own_dir(workspace)?;
    let setup = Setup {
        binary: builds.0,
        other_build: builds.1,
        dir: &dir,
        nics: plan.most_vms(),
        attach: plan.attach,
    };
    let mut fleet = Fleet::new(&dir)?;
    let mut figures = Figures::default();
    growth::measure(&mut figures, &setup, &mut fleet, &plan.sizes.0)?;
    fleet.grow_to(plan.vms)?;
    let plain_reads = PlainReads::new(&fleet)?;
    for rate in &RATES {
        measure_at(rate, &mut figures, plan, &setup, (&fleet, &plain_reads))?;
    }
    drop(plain_reads);
    growth::measure(&mut figures, &setup, &mut fleet, plan.sizes.1)?;
    growth::fit(&mut figures);
    Ok(Run { machine, vms: plan.vms, rounds: plan.rounds, figures })
}

/// Measures all that is done at this rate of ticks, by daemons with this interval.
fn measure_at(
    rate: &Rate,
    figures: &mut Figures,
    plan: &Plan,
    setup: &Setup<'_>,
    (fleet, plain_reads): (&Fleet, &PlainReads),
) -> Result<()> {
    let mut daemons = Vec::new();
    for kind in KINDS {
        let Some(daemon) = setup.start(kind, rate.interval, plan.vms)? else { continue };
        // The first daemon of a name attaches all programs, and later ones find them.
        if rate.is_first {
            figures.add(format!("counted_after.{}", daemon.name), daemon.counted_after.as_secs_f64());
        }
        daemon.pause()?;
        daemons.push(daemon);
    }
    progress(&format!("{} daemons, a tick every {:?}", daemons.len(), rate.interval));
    // All VMs are new to these daemons.
    thread::sleep(YOUTH);
    tick_cost::measure(figures, plan, plain_reads, &daemons, rate)?;
    let default = daemons.first().context("the default configuration is refused")?;
    default.in_turn(|daemon: &Contestant| {
        if rate.is_first {
            progress("scrapes and packets");
            scrapes::measure(figures, plan, daemon)?;
            packets::measure(figures, plan, daemon, fleet)
        } else {
            progress("readers, and ten ticks and a scrape a second");
            readers::measure(figures, daemon, plan.window, plan.vms)?;
            pace::measure(figures, plan, daemon, rate.interval)?;
            usage::measure(figures, daemon, plan.vms)
        }
    })
}

fn progress(step: &str) {
    eprintln!("xtask: bench: {step}");
}

/// The children inherit the limit. Without CAP_SYS_RESOURCE it grows to the hard one only.
fn raise_open_files() -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let both = |limit| Rlimit { current: limit, maximum: limit };
    setrlimit(Resource::Nofile, both(hard.map(|hard| hard.max(OPEN_FILES))))
        .or_else(|_| setrlimit(Resource::Nofile, both(hard)))
        .context("raise the limit of open files")
}

/// Hides all other VMs of this host from the daemons, which would measure them as well.
///
/// Children of this thread get no CAP_SYS_PTRACE. In this mount of proc they see only processes without more rights
/// than theirs, so only each other.
fn hide_other_processes() -> Result<()> {
    remove_capability_from_bounding_set(CapabilitySet::SYS_PTRACE)
        .context("drop CAP_SYS_PTRACE for children")?;
    mount("proc", "/proc", "proc", MountFlags::empty(), c"hidepid=4").context("mount proc with hidepid=4")
}

/// Makes a directory in memory that only this run sees.
fn own_dir(workspace: &Workspace) -> Result<PathBuf> {
    let dir = workspace.target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount tmpfs on {}", dir.display()))?;
    Ok(dir)
}
