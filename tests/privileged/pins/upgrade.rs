//! A new daemon replaces programs of another version without a gap.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use aya::programs::{SchedClassifier, TcAttachType};
use tempfile::TempDir;
use vm_metrics_testkit::child::copy_program;

use super::host::{BINARY, Host, cases, wait_for_all};
use crate::chain::tc;

/// The end of both programs: `r0 = 0xffffffff; exit`. See `CONTINUE` in the programs.
const END: [[u8; 8]; 3] = [[0x18, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0; 8], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The upper half of the number, which the kernel ignores.
const OTHER_HALF: [u8; 8] = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// Returns a daemon whose programs differ but do the same.
fn other_version() -> (TempDir, PathBuf) {
    let mut daemon = fs::read(BINARY).unwrap();
    let end = END.concat();
    let ends: Vec<usize> = (0..daemon.len()).filter(|at| daemon[*at..].starts_with(&end)).collect();
    assert_eq!(ends.len(), 2, "the compiler ends the programs otherwise now");
    for at in ends {
        daemon[at + 8..at + 16].copy_from_slice(&OTHER_HALF);
    }
    let dir = tempfile::tempdir().unwrap();
    let (written, path) = (dir.path().join("written"), dir.path().join("vm-metrics"));
    fs::write(&written, daemon).unwrap();
    fs::set_permissions(&written, Permissions::from_mode(0o755)).unwrap();
    copy_program(&written, &path).unwrap();
    (dir, path)
}

/// Returns the kernel's tag of each program on the TAP.
fn tags() -> Vec<String> {
    let by_tcx = |direction| {
        let programs = SchedClassifier::query_tcx("vmt0", direction).map_or(Vec::new(), |(_, found)| found);
        programs.into_iter().map(|program| format!("{:016x}", program.tag())).collect::<Vec<_>>()
    };
    let by_clsact = |direction: &str| {
        let message = tc(&format!("filter show dev vmt0 {direction}"));
        let words: Vec<&str> = message.split_whitespace().collect();
        let tags = words.windows(2).filter(|pair| pair[0] == "tag").map(|pair| pair[1].to_owned());
        tags.collect::<Vec<_>>()
    };
    let tags = [
        [by_tcx(TcAttachType::Ingress), by_clsact("ingress")].concat(),
        [by_tcx(TcAttachType::Egress), by_clsact("egress")].concat(),
    ];
    assert!(tags.iter().all(|one| one.len() == 1), "{tags:?}");
    tags.concat()
}

#[test]
fn other_programs_take_over_under_traffic() {
    let (_dir, other) = other_version();
    for (user, way) in cases() {
        let host = Host::new(user, way);
        let mut daemon = host.start_as(&other, "ebpf");
        let before = tags();
        let (exchanged, daemon) = host.exchange_while(|| {
            // The upgrade goes back as well.
            daemon.kill().unwrap();
            host.start().kill().unwrap();
            let between = tags();
            assert!(
                between.iter().all(|tag| !before.contains(tag)),
                "{user:?} {way}: {between:?} after {before:?}"
            );
            host.start_as(&other, "ebpf").terminate().unwrap();
            assert_eq!(tags(), before, "{user:?} {way}");
            host.start()
        });
        wait_for_all(&daemon, exchanged);
    }
}
