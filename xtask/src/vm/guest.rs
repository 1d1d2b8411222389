//! Runs tests on one kernel in a guest, each in a process.
//!
//! A test that hangs or crashes the kernel is one failure.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_metrics_testkit::guest::{Contents, Guest, GuestConfig, GuestImage, Kernel};
use vm_metrics_testkit::packages;
use vm_metrics_testkit::skip::SKIP_LOG;

use super::binaries::Binaries;
use super::table::Verdict;

/// Ten times the slowest test without KVM on a quiet machine.
const TEST_DEADLINE: Duration = Duration::from_secs(240);

/// Kernel modules of the tests. Debian builds none of them in.
const MODULES: &[&str] =
    &["tun", "veth", "macvtap", "sch_ingress", "sch_tbf", "cls_bpf", "cls_u32", "act_gact"];
/// Programs of the tests, and their Debian packages.
const PROGRAMS: &[&str] = &["install", "sleep", "tc", "ip", "setpriv", "unshare"];
const PACKAGES: &[&str] = &["coreutils", "iproute2", "util-linux"];

/// Limit of concurrent guests, each with a GiB of memory.
const MAX_GUESTS: usize = 4;

const SKIPS: &str = "/tmp/skips";

/// Short schedules of `tests/privileged/{conservation,leaks}`, without hostile neighbours, because without KVM
/// everything is ten times slower.
const SCHEDULE: &str = "TESTKIT_LIVES=40 TESTKIT_NEIGHBOURS=0 TESTKIT_SHORT_ROUNDS=1";

/// Returns the kernel of the Debian release, which must have this version.
pub fn kernel(version: &str, debian: &str) -> Result<Kernel> {
    let kernel = Kernel::of_debian(debian)?;
    let has = kernel.release.strip_prefix(version);
    let is_version = has.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()));
    ensure!(is_version, "Debian {debian} has Linux {} by now", kernel.release);
    Ok(kernel)
}

/// Runs the tests and returns their verdicts.
pub fn run(binaries: &Binaries, kernel: &Kernel, tests: &[&String]) -> Result<Vec<(String, Verdict)>> {
    packages::ensure_debian(PACKAGES)?;
    let mut contents = Contents::default();
    contents.add_modules(MODULES);
    for program in &binaries.programs {
        contents.add_program_at(&program.path, &program.stripped)?;
    }
    for file in &binaries.files {
        contents.add_file(file)?;
    }
    for program in PROGRAMS {
        contents.add_program(program)?;
    }
    let image = GuestImage::build(kernel, &contents)?;
    // A guest takes one CPU, see `boot`.
    let guests = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_GUESTS);
    let queue = Mutex::new(tests.iter().enumerate());
    let worker = || run_some(binaries, kernel, &image, &queue);
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (0..guests).map(|_| scope.spawn(worker)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.collect::<Result<Vec<_>>>()
    })?
    .concat();
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(at, verdict)| (tests[at].clone(), verdict)).collect())
}

/// Runs tests from the queue until it is empty, each with its index.
fn run_some<'t>(
    binaries: &Binaries,
    kernel: &Kernel,
    image: &GuestImage,
    queue: &Mutex<impl Iterator<Item = (usize, &'t &'t String)>>,
) -> Result<Vec<(usize, Verdict)>> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut guest = None;
    let mut results = Vec::new();
    while let Some((at, test)) = next() {
        let start = Instant::now();
        let (verdict, message) = run_test(image, &mut guest, binaries, test)?;
        let took = start.elapsed().as_secs_f64();
        let message = if verdict.is_failure() { format!("\n{message}") } else { String::new() };
        eprintln!("xtask: {} {test}: {verdict} ({took:.1} s){message}", kernel.release);
        results.push((at, verdict));
    }
    Ok(results)
}

/// Runs a test, in a new guest if there is none. Returns the verdict with the output of the test or the kernel.
fn run_test(
    image: &GuestImage,
    guest: &mut Option<Guest>,
    binaries: &Binaries,
    test: &str,
) -> Result<(Verdict, String)> {
    let running = match guest {
        Some(running) => running,
        None => guest.insert(boot(image)?),
    };
    let suite = binaries.suite.display();
    let command = format!("rm -f {SKIPS}; {SKIP_LOG}={SKIPS} {SCHEDULE} {suite} --exact {test}");
    let answer = running.status_of(TEST_DEADLINE, &command).and_then(|(status, message)| {
        let skips = running.status_of(TEST_DEADLINE, &format!("cat {SKIPS}"))?;
        Ok((status, message, if skips.0 == 0 { skips.1 } else { String::new() }))
    });
    Ok(match answer {
        Ok((status, message, skips)) => (Verdict::of(status, &message, &skips), message),
        Err(error) => {
            let console = running.console_tail(40);
            // The next test gets a new guest.
            *guest = None;
            (Verdict::Failed(format!("{error:#}")), console)
        }
    })
}

fn boot(image: &GuestImage) -> Result<Guest> {
    let mut config = GuestConfig::new("kernel", Vec::new())?;
    config.vcpus = 2;
    config.memory_mib = 1024;
    // With a thread per CPU a kernel may crash. One CPU can still run into a breakpoint that another CPU put into the
    // code and removed. The kernel does so when the first program attaches to a device.
    config.accel = "tcg,thread=single";
    image.boot(config).context("boot the kernel")
}
