//! The test suites, their cargo arguments and their requirements.

use std::num::NonZeroU8;

use crate::workspace::Workspace;

#[derive(Debug)]
pub struct Suite {
    pub name: String,
    /// Arguments of `cargo test`.
    pub arguments: Vec<String>,
    needs: Needs,
}

/// Requirements of a suite beyond a toolchain.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    root: bool,
    minutes: bool,
    /// Debian packages to install for it.
    packages: &'static [&'static str],
    /// Limit of concurrent tests, if libtest should not decide.
    threads: Option<NonZeroU8>,
}

impl Suite {
    fn new(name: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { name: name.to_owned(), arguments, needs: Needs::default() }
    }

    fn integration(name: &str) -> Self {
        let needs = match name {
            // It lists programs with `tc`. Its tests mostly wait for ticks.
            "privileged" => {
                Needs { root: true, packages: &["iproute2"], threads: NonZeroU8::new(4), ..Needs::default() }
            }
            // It builds the library with all dependencies once more.
            "library" => Needs { minutes: true, ..Needs::default() },
            "processes" | "prometheus" | "taps" => Needs { root: true, ..Needs::default() },
            // A guest takes a core while it boots.
            "guest" | "vm" => Needs {
                root: true,
                minutes: true,
                packages: &[
                    "cpio",
                    "iproute2",
                    "kmod",
                    "libvirt-clients",
                    "libvirt-daemon",
                    "libvirt-daemon-driver-qemu",
                    "qemu-system-arm",
                    "qemu-system-x86",
                ],
                threads: NonZeroU8::new(2),
            },
            _ => Needs::default(),
        };
        Self { needs, ..Self::new(name, &["--test", name]) }
    }

    pub fn reason_to_skip(&self, is_root: bool, quick: bool) -> Option<&'static str> {
        if self.needs.root && !is_root {
            return Some("needs root");
        }
        (self.needs.minutes && quick).then_some("--quick")
    }

    pub fn packages(&self) -> &'static [&'static str] {
        self.needs.packages
    }

    pub fn threads(&self) -> Option<NonZeroU8> {
        self.needs.threads
    }
}

/// Returns the suites, those first that find errors cheaply.
///
/// The selection of packages stays the workspace's default members as far as possible. Any other selection would build
/// the dependencies again with other features.
pub fn suites(workspace: &Workspace) -> Vec<Suite> {
    let integration_tests = workspace.integration_tests();
    let mut suites = vec![
        Suite::new("unit", &["--lib", "--bins"]),
        Suite::new("doc", &["--doc"]),
        Suite::new("examples", &["--examples"]),
    ];
    suites.extend(integration_tests.iter().map(|name| Suite::integration(name)));

    let mut no_ebpf = vec!["--package", "vm-metrics", "--no-default-features", "--lib", "--bins"];
    if integration_tests.contains(&"e2e") {
        no_ebpf.extend(["--test", "e2e"]);
    }
    suites.push(Suite::new("without eBPF", &no_ebpf));
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_names_the_packages_of_its_programs() {
        assert_eq!(Suite::integration("privileged").packages(), ["iproute2"]);
        assert!(Suite::integration("e2e").packages().is_empty());
    }

    #[test]
    fn only_what_needs_root_or_minutes_is_skipped() {
        let reasons = |name, is_root, quick| Suite::integration(name).reason_to_skip(is_root, quick);
        assert_eq!(reasons("e2e", false, true), None);
        assert_eq!(reasons("privileged", false, false), Some("needs root"));
        assert_eq!(reasons("privileged", true, true), None);
        assert_eq!(reasons("vm", true, false), None);
        assert_eq!(reasons("vm", true, true), Some("--quick"));
    }
}
