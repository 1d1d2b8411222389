//! Recognizes hypervisors by the file names of their programs.

use crate::model::Hypervisor;

/// Words that may follow a hypervisor's name in its file name, beside a version: builds, architectures, kinds of
/// confidential VMs, package leftovers.
const BUILD_WORDS: &[&str] = &[
    "aarch64", "amd64", "arm64", "bin", "custom", "cvm", "debug", "dev", "dpkg", "glibc", "gnu", "igvm",
    "latest", "macvtap", "mshv", "musl", "nightly", "orig", "patched", "real", "release", "riscv64",
    "rpmsave", "sev", "snp", "spice", "stable", "static", "tdx", "upstream", "wrapped", "x86",
];

/// Bytes of a program's name that the kernel keeps in `comm`.
const COMMAND_LENGTH: usize = 15;

/// The hypervisor with this file name. Helpers (`qemu-img`, `jailer`, `ch-remote`, `firecracker-containerd`, …) are none.
pub fn hypervisor(file_name: &str) -> Option<Hypervisor> {
    // A wrapper may hide the real program behind a dot.
    let name = file_name.strip_prefix('.').unwrap_or(file_name);
    // `qemu-system-x86_64`, and builds like `qemu-lite-system-x86_64`.
    if name.starts_with("qemu-") && name.contains("-system-")
        || is_build_of(name, "qemu-kvm")
        || is_build_of(name, "kvm")
    {
        Some(Hypervisor::Qemu)
    } else if is_build_of(name, "cloud-hypervisor") {
        Some(Hypervisor::CloudHypervisor)
    } else if is_build_of(name, "firecracker") {
        Some(Hypervisor::Firecracker)
    } else {
        None
    }
}

/// The hypervisor of which a program is a build, by the beginning of its file name. Also its helpers have such names.
pub fn kind(file_name: &str) -> Option<Hypervisor> {
    let begins = |program: &str| file_name.starts_with(program);
    match () {
        () if begins("qemu") => Some(Hypervisor::Qemu),
        () if begins("cloud-hypervisor") => Some(Hypervisor::CloudHypervisor),
        () if begins("firecracker") => Some(Hypervisor::Firecracker),
        () => None,
    }
}

/// The name of the hypervisor in a process's `comm`, of which the kernel cuts the end; `None` for any other program.
pub fn of_command(command: &str) -> Option<&str> {
    if hypervisor(command).is_some() {
        return Some(command);
    }
    let program = ["cloud-hypervisor", "firecracker"].into_iter().find(|program| {
        let is_cut_build = |rest: &str| BUILD_WORDS.iter().any(|word| word.starts_with(rest));
        program.starts_with(command)
            || command
                .strip_prefix(program)
                .and_then(|rest| rest.strip_prefix(['-', '_']))
                .is_some_and(is_cut_build)
    });
    program.filter(|_| command.len() == COMMAND_LENGTH)
}

/// The file name in the target of `/proc/<pid>/exe`, without the mark of a replaced file.
pub fn file_name<'a>(target: &'a str) -> &'a str {
    let last = |path: &'a str| path.rsplit('/').next().filter(|name| !name.is_empty());
    // A file may also have such a name.
    target.strip_suffix(" (deleted)").and_then(last).or_else(|| last(target)).unwrap_or_default()
}

/// `program`, `program-v1.7.0-x86_64`, `program-static`, `program;65f1a2b3` (a file that rpm is replacing).
fn is_build_of(name: &str, program: &str) -> bool {
    let Some(rest) = name.strip_prefix(program) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix(['-', '_', '.', ';']) else {
        return rest.is_empty();
    };
    let word = rest.split(['-', '_', '.', ';']).next().unwrap_or(rest);
    let version = word.strip_prefix('v').unwrap_or(word);
    BUILD_WORDS.contains(&word) || version.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hypervisors_and_their_builds() {
        for (name, expected) in [
            ("qemu-system-x86_64", Hypervisor::Qemu),
            ("qemu-system-aarch64", Hypervisor::Qemu),
            ("qemu-system-x86_64-snp-experimental", Hypervisor::Qemu),
            ("qemu-lite-system-x86_64", Hypervisor::Qemu),
            (".qemu-system-x86_64-wrapped", Hypervisor::Qemu),
            ("qemu-kvm", Hypervisor::Qemu),
            ("qemu-kvm;65f1a2b3", Hypervisor::Qemu),
            ("kvm", Hypervisor::Qemu),
            ("kvm-spice", Hypervisor::Qemu),
            ("cloud-hypervisor", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-static", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-static-aarch64", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-v40.0", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-glibc", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-snp", Hypervisor::CloudHypervisor),
            ("cloud-hypervisor-cvm", Hypervisor::CloudHypervisor),
            ("firecracker", Hypervisor::Firecracker),
            ("firecracker_macvtap", Hypervisor::Firecracker),
            ("firecracker-v1.7.0-x86_64", Hypervisor::Firecracker),
            ("firecracker-1.7", Hypervisor::Firecracker),
            ("firecracker.dpkg-tmp", Hypervisor::Firecracker),
        ] {
            assert_eq!(hypervisor(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn helpers_are_no_hypervisors() {
        for name in [
            "qemu-img",
            "qemu-nbd",
            "qemu-io",
            "qemu-storage-daemon",
            "qemu-ga",
            "qemu-pr-helper",
            "qemu-bridge-helper",
            "qemu-vhost-user-gpu",
            "qemu-x86_64",
            "qemu-aarch64-static",
            "vhost-user-blk",
            "virtiofsd",
            "passt",
            "swtpm",
            "jailer",
            "jailer-v1.7.0-x86_64",
            "ch-remote",
            "ch-remote-static",
            "firecracker-containerd",
            "firecracker-task-driver",
            "firecracker-ctr",
            "firectl",
            "kvm_stat",
            "kvm-ok",
            "kvmtool",
            "cloud-hypervisor-exporter",
            "bash",
            "libvirtd",
            "",
            ".",
        ] {
            assert_eq!(hypervisor(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_the_kernel_cut() {
        for (command, expected) in [
            ("qemu-system-x86", Some("qemu-system-x86")),
            ("firecracker", Some("firecracker")),
            ("cloud-hyperviso", Some("cloud-hypervisor")),
            ("firecracker_mac", Some("firecracker")),
            ("firecracker-con", None),
            ("cloud-hyper", None),
            ("cloud-hypervisX", None),
            ("", None),
        ] {
            assert_eq!(of_command(command), expected, "{command}");
        }
    }

    #[test]
    fn targets() {
        assert_eq!(file_name("/usr/bin/qemu-system-x86_64"), "qemu-system-x86_64");
        assert_eq!(file_name("/usr/bin/qemu-system-x86_64 (deleted)"), "qemu-system-x86_64");
        assert_eq!(file_name("/opt/ (deleted)"), " (deleted)");
        assert_eq!(file_name("/opt/ (deleted) (deleted)"), " (deleted)");
        assert_eq!(file_name("kvm"), "kvm");
        assert_eq!(file_name(""), "");
    }

    proptest! {
        #[test]
        fn any_name_never_panics(name: String) {
            let _ = hypervisor(file_name(&name));
            let _ = of_command(&name);
        }
    }
}
