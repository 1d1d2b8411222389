//! Where a process runs, by its control groups: pod, unit, scope. Pure.

/// The names in `/proc/<pid>/cgroup` that outlive a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The UID of the Kubernetes pod.
    pub pod: Option<String>,
    /// A unit of systemd that somebody has named.
    pub service: Option<String>,
    /// A scope, or the control group of a container.
    pub scope: Option<String>,
}

/// One line for each hierarchy; the unified one has the number 0.
pub fn parse(content: &[u8]) -> Cgroup {
    let text = String::from_utf8_lossy(content);
    let paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let parts = || paths.iter().flat_map(|path| path.split('/'));
    // The innermost names come last, and the unified hierarchy, too.
    let last = |wanted: fn(&str) -> Option<String>| parts().filter_map(wanted).next_back();
    Cgroup { pod: last(pod), service: last(service), scope: last(scope) }
}

/// `pod<uid>` of cgroupfs, `kubepods-burstable-pod<uid>.slice` of systemd, which has `_` for `-`.
fn pod(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.strip_prefix("kubepods") {
        Some(rest) => rest.rsplit_once("-pod")?.1,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-").to_ascii_lowercase();
    // The UID of a static pod is a hash without dashes.
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

/// Those that systemd names by itself are others the next time.
fn service(part: &str) -> Option<String> {
    let is_transient = part.starts_with("run-") || part.starts_with("user@");
    (part.ends_with(".service") && !is_transient).then(|| part.to_owned())
}

fn scope(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope")?;
    let is_transient = ["run-", "session-", "init"].iter().any(|prefix| name.starts_with(prefix));
    (!is_transient).then(|| without_number(name))
}

/// libvirt's `machine-qemu\x2d7\x2dweb` has the number of this run.
fn without_number(scope: &str) -> String {
    const DASH: &str = "\\x2d";
    let mut parts: Vec<&str> = scope.split(DASH).collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if scope.starts_with("machine-") && parts.len() > 2 && is_number(&parts[1]) {
        parts.remove(1);
    }
    parts.join(DASH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-1111-4222-8333-444455556666";

    fn cgroup(path: &str) -> Cgroup {
        parse(format!("0::{path}\n").as_bytes())
    }

    #[test]
    fn pods_have_their_uid() {
        let escaped = UID.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{UID}/crio-1"),
            format!("/kubepods/pod{UID}"),
            format!("/kubepods.slice/kubepods-pod{escaped}.slice/cri-containerd-1.scope"),
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice/x"),
            format!("/../../kubelet/kubepods/pod{UID}"),
        ] {
            assert_eq!(cgroup(&path).pod.as_deref(), Some(UID), "{path}");
        }
        for path in ["/", "/podman.slice", "/user.slice/pod1", "/kubepods", ""] {
            assert_eq!(cgroup(path).pod, None, "{path}");
        }
        assert_eq!(parse(b"junk\n0:\n::::\n\xff"), Cgroup::default());
    }

    #[test]
    fn only_lasting_units_count() {
        let unit = |path: &str| {
            let Cgroup { service, scope, .. } = cgroup(path);
            (service.unwrap_or_default(), scope.unwrap_or_default())
        };
        for (path, service, scope) in [
            ("/system.slice/microvm@web.service", "microvm@web.service", ""),
            ("/qemu.slice/121.scope", "", "121"),
            ("/user.slice/user-0.slice/session-3.scope", "", ""),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/run-r12.scope", "", ""),
            ("/machine.slice/machine-qemu\\x2d7\\x2dweb.scope/libvirt/emulator", "", "machine-qemu\\x2dweb"),
            ("/machine.slice/machine-qemu\\x2d8\\x2dweb\\x2d2.scope", "", "machine-qemu\\x2dweb\\x2d2"),
        ] {
            assert_eq!(unit(path), (service.to_owned(), scope.to_owned()), "{path}");
        }
        assert_eq!(parse(b"3:cpu:/a.service\n0::/b.service\n").service.as_deref(), Some("b.service"));
    }
}
