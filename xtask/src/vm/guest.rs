//! One kernel in a guest, and each test in a process of its own: a test that hangs or kills the kernel is one failure.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_metrics_testkit::guest::{Contents, Guest, GuestConfig, GuestImage, Kernel};
use vm_metrics_testkit::packages;
use vm_metrics_testkit::skip::SKIP_LOG;

use super::binaries::Binaries;
use super::table::Verdict;

/// Ten times what the slowest test takes without KVM on a quiet machine.
const TEST_DEADLINE: Duration = Duration::from_secs(240);

/// What the tests want of a kernel. Debian has none of it built in.
const MODULES: &[&str] =
    &["tun", "veth", "macvtap", "sch_ingress", "sch_tbf", "cls_bpf", "cls_u32", "act_gact"];
/// What the tests run, and the Debian packages it is in.
const PROGRAMS: &[&str] = &["tc", "ip", "setpriv", "unshare"];
const PACKAGES: &[&str] = &["iproute2", "util-linux"];

const SKIPS: &str = "/tmp/skips";

/// Short schedules of `tests/privileged/{conservation,rounds}`: without KVM everything takes ten times as long.
const SCHEDULE: &str = "VM_METRICS_LIVES=100 VM_METRICS_SHORT_ROUNDS=1";

/// The kernel of the Debian release, which must be of the version.
pub fn kernel(version: &str, debian: &str) -> Result<Kernel> {
    let kernel = Kernel::of_debian(debian)?;
    let has = kernel.release.strip_prefix(version);
    let is_version = has.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()));
    ensure!(is_version, "Debian {debian} has Linux {} by now", kernel.release);
    Ok(kernel)
}

/// Test by test what came of it.
pub fn run(binaries: &Binaries, kernel: &Kernel, tests: &[&String]) -> Result<Vec<(String, Verdict)>> {
    packages::ensure_debian(PACKAGES)?;
    let mut contents = Contents::default();
    contents.add_modules(MODULES);
    for file in &binaries.files {
        contents.add_file(file)?;
    }
    for program in PROGRAMS {
        contents.add_program(program)?;
    }
    let image = GuestImage::build(kernel, &contents)?;
    let mut guest = None;
    let mut results = Vec::new();
    for &test in tests {
        let start = Instant::now();
        let (verdict, said) = run_test(&image, &mut guest, binaries, test)?;
        eprintln!("xtask: {} {test}: {verdict} ({:.1} s)", kernel.release, start.elapsed().as_secs_f64());
        if verdict.is_failure() {
            eprintln!("{said}");
        }
        results.push((test.clone(), verdict));
    }
    Ok(results)
}

/// With all that the test, or the kernel, has said. Boots a guest where there is none.
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
    let answer = running.status_of(TEST_DEADLINE, &command).and_then(|(status, said)| {
        let skips = running.status_of(TEST_DEADLINE, &format!("cat {SKIPS}"))?;
        Ok((status, said, if skips.0 == 0 { skips.1 } else { String::new() }))
    });
    Ok(match answer {
        Ok((status, said, skips)) => (Verdict::of(status, &said, &skips), said),
        Err(error) => {
            let console = running.console_tail(40);
            // The next test gets a guest that is well.
            *guest = None;
            (Verdict::Failed(format!("{error:#}")), console)
        }
    })
}

fn boot(image: &GuestImage) -> Result<Guest> {
    let mut config = GuestConfig::new("kernel", Vec::new())?;
    config.vcpus = 2;
    config.memory_mib = 1024;
    // With a thread per CPU a kernel may die: one CPU still runs into a breakpoint that the other has put into the code
    // and taken out again, as the kernel does where it switches on what the first program on a device needs.
    config.accel = "tcg,thread=single";
    image.boot(config).context("boot the kernel")
}
