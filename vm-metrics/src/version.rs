//! The text of `vm-metrics --version`.

use std::sync::LazyLock;

use crate::readers;

/// The commit of the build, if it was built from git.
const COMMIT: Option<&str> = option_env!("VM_METRICS_COMMIT");

/// Version, commit and features of the build.
pub(crate) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| describe(COMMIT, readers::pins_version()));
    &TEXT
}

/// `pins` is the version of the pins in the bpffs, in a build with eBPF.
fn describe(commit: Option<&str>, pins: Option<u32>) -> String {
    let commit = commit.unwrap_or("unknown (known only in a release build from git)");
    let ebpf = match pins {
        Some(version) => format!("yes; what stays in the bpffs has version {version}"),
        None => "no (built with --no-default-features)".to_owned(),
    };
    format!("{}\ncommit: {commit}\neBPF: {ebpf}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_from_others() {
        let version = env!("CARGO_PKG_VERSION");
        let full = format!("{version}\ncommit: 0123abc\neBPF: yes; what stays in the bpffs has version 7");
        assert_eq!(describe(Some("0123abc"), Some(7)), full);
        assert!(describe(None, None).ends_with("eBPF: no (built with --no-default-features)"));
    }
}
