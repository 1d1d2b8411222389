//! Unit, pod and container of a process, by the path of its control group. Pure.

/// The names in the path of a control group. A user may make groups of any name below its own, so each is a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The innermost systemd unit, where it is a scope, without `.scope`: `machine-qemu-1-web`.
    pub scope: Option<String>,
    /// The innermost systemd unit, where it is a service, without `.service`: `web`.
    pub service: Option<String>,
    /// The UID of the Kubernetes pod, with hyphens.
    pub pod: Option<String>,
    /// The id of the container or pod sandbox: 64 hexadecimal digits.
    pub container: Option<String>,
}

/// Reads `/proc/<pid>/cgroup`. Lines that are cut or unknown name nothing.
pub fn parse_cgroup(content: &[u8]) -> Cgroup {
    let text = String::from_utf8_lossy(content);
    let Some(path) = path(&text) else { return Cgroup::default() };
    let mut cgroup = Cgroup::default();
    // From the outside to the inside: the innermost counts.
    for component in path.split('/') {
        if let Some(name) = component.strip_suffix(".scope") {
            if !is_shared(component) {
                (cgroup.scope, cgroup.service) = (Some(unescaped(name)), None);
            }
        } else if let Some(name) = component.strip_suffix(".service")
            && !is_shared(component)
        {
            (cgroup.scope, cgroup.service) = (None, Some(unescaped(name)));
        }
        // `kubepods-pod<uid>.slice:cri-containerd:<id>` is one component.
        for word in component.split([':', '.']) {
            cgroup.pod = pod(word).or(cgroup.pod);
            cgroup.container = container(word).or(cgroup.container);
        }
    }
    cgroup
}

/// The groups of the root in which Kubernetes makes those of pods.
const OF_KUBERNETES: [&str; 4] = ["kubepods", "kubepods.slice", "kubelet", "kubelet.slice"];

/// The UID of the pod that Kubernetes has made a group for. Names further inside are of others: a user may make groups of
/// any name below its own.
pub fn kubernetes_pod(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let mut components = path(&text)?.split('/').filter(|component| !matches!(*component, "" | ".."));
    let is_of_kubernetes = components.clone().next().is_some_and(|first| OF_KUBERNETES.contains(&first));
    is_of_kubernetes
        .then(|| components.find_map(|component| component.split([':', '.']).find_map(pod)))
        .flatten()
}

/// The path in the unified hierarchy (v2), as the kernel has it; `None` without one. The kernel adds ` (deleted)` to the
/// path of a removed group, and a user may give a group that name.
pub fn unified_group(content: &[u8]) -> Option<&[u8]> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.filter_map(|line| line.strip_suffix(b"\n")?.strip_prefix(b"0::")).next()
}

/// The path of a control group as it is the next time, too: logins and units that systemd names have no number. Empty: none.
pub fn lasting_path(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let is_numbered = |component: &str| component.starts_with("session-") || component.starts_with("run-");
    let lasting = |component: &str| match is_numbered(component) {
        true => component.replace(|character: char| character.is_ascii_digit(), ""),
        false => component.to_owned(),
    };
    path(&text).unwrap_or_default().split('/').map(lasting).collect::<Vec<_>>().join("/")
}

/// The path in the unified hierarchy; else in systemd's; else in the first that has one.
fn path(text: &str) -> Option<&str> {
    let lines = text.split_inclusive('\n').filter_map(|line| {
        let mut fields = line.strip_suffix('\n')?.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        (path != "/").then_some((controllers, path))
    });
    let rank = |controllers: &str| match controllers {
        "" => 0,
        "name=systemd" => 1,
        _ => 2,
    };
    lines.min_by_key(|(controllers, _)| rank(controllers)).map(|(_, path)| path)
}

/// Units of a whole login or of the host, which do not separate processes.
fn is_shared(unit: &str) -> bool {
    unit == "init.scope" || unit.starts_with("session-") || unit.starts_with("user@")
}

/// `kubepods-burstable-pod<uid with underscores>` of systemd, `pod<uid>` of cgroupfs.
fn pod(word: &str) -> Option<String> {
    let is_uid = |uid: &&str| {
        let groups: Vec<_> = uid.split(['-', '_']).map(str::len).collect();
        let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_';
        (groups == [8, 4, 4, 4, 12] || groups == [32]) && uid.bytes().all(is_digit)
    };
    let (before, uid) = word.rsplit_once("pod").filter(|(_, uid)| is_uid(uid))?;
    (before.is_empty() || before.ends_with('-')).then(|| uid.replace('_', "-"))
}

/// `<id>`, `docker-<id>`, `kata_<id>`.
fn container(word: &str) -> Option<String> {
    const DIGITS: usize = 64;
    let id = word.rsplit(['-', '_']).next()?;
    (id.len() == DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// systemd writes `-` within a name as `\x2d`. Unprintable characters stay escaped.
fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(u8::is_ascii_graphic) {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[2..]);
            }
            None => {
                text.push_str("\\x");
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "8f5a9c1e-1d2b-4c3d-9e8f-0123456789ab";

    fn of(path: &str) -> Cgroup {
        parse_cgroup(format!("0::{path}\n").as_bytes())
    }

    fn scope(name: &str) -> Cgroup {
        Cgroup { scope: Some(name.into()), ..Cgroup::default() }
    }

    fn service(name: &str) -> Cgroup {
        Cgroup { service: Some(name.into()), ..Cgroup::default() }
    }

    #[test]
    fn only_groups_of_kubernetes_name_a_pod() {
        let underscored = POD.replace('-', "_");
        let other = POD.replace('8', "9");
        for (path, is_pod) in [
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/x.scope"
                ),
                true,
            ),
            (format!("/kubepods/besteffort/pod{POD}/{ID}"), true),
            (format!("/../../kubepods/pod{POD}"), true),
            (format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscored}.slice"), true),
            (format!("/kubepods/pod{POD}/{ID}/kubepods/pod{other}"), true),
            (format!("/user.slice/user-1000.slice/kubepods/pod{POD}"), false),
            (format!("/kubepods-of-mine/pod{POD}"), false),
            ("/kubepods/burstable".to_owned(), false),
            ("/".to_owned(), false),
        ] {
            let pod = kubernetes_pod(format!("0::{path}\n").as_bytes());
            assert_eq!(pod.as_deref(), is_pod.then_some(POD), "{path}");
        }
    }

    #[test]
    fn only_the_unified_group_is_read() {
        let hybrid: &[u8] = b"5:memory:/a\n1:name=systemd:/b\n0::/c/d e\n";
        assert_eq!(unified_group(hybrid), Some(&b"/c/d e"[..]));
        assert_eq!(unified_group(&hybrid[..hybrid.len() - 1]), None, "it may have been cut");
        assert_eq!(unified_group(b"5:memory:/a\n"), None);
        assert_eq!(unified_group(b"0::/a (deleted)\n"), Some(&b"/a (deleted)"[..]));
    }

    #[test]
    fn lasting_paths_have_no_numbers_of_systemd() {
        for (content, expected) in [
            ("0::/user.slice/user-7.slice/session-12.scope\n", "/user.slice/user-7.slice/session-.scope"),
            ("0::/system.slice/run-u31.service\n", "/system.slice/run-u.service"),
            ("0::/system.slice/web2.service (deleted)\n", "/system.slice/web2.service"),
            ("0::/\n", ""),
            ("", ""),
        ] {
            assert_eq!(lasting_path(content.as_bytes()), expected, "{content}");
        }
    }

    #[test]
    fn units_are_the_innermost() {
        for (path, expected) in [
            ("/machine.slice/machine-qemu\\x2d1\\x2dweb.scope", scope("machine-qemu-1-web")),
            ("/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator", scope("machine-qemu-1-web")),
            ("/qemu.slice/101.scope", scope("101")),
            ("/system.slice/web.service", service("web")),
            ("/system.slice/system-microvm.slice/microvm@web.service", service("microvm@web")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/vm.scope", scope("vm")),
            ("/user.slice/user-1000.slice/session-3.scope", Cgroup::default()),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice", Cgroup::default()),
            ("/init.scope", Cgroup::default()),
            ("/", Cgroup::default()),
            ("/system.slice/web.service (deleted)", service("web")),
            ("/a\\x0ab\\x2.scope", scope("a\\x0ab\\x2")),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn pods_of_each_driver_and_runtime() {
        let underscored = POD.replace('-', "_");
        for (path, container, scope) in [
            (format!("/kubepods/burstable/pod{POD}/{ID}"), Some(ID), None),
            (format!("/kubepods/pod{POD}/kata_{ID}"), Some(ID), None),
            (format!("/../../kubepods/pod{POD}"), None, None),
            (format!("/kubepods.slice/kubepods-pod{underscored}.slice:cri-containerd:{ID}"), Some(ID), None),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some(ID),
                Some(format!("cri-containerd-{ID}")),
            ),
        ] {
            let container = container.map(str::to_owned);
            let expected = Cgroup { pod: Some(POD.into()), container, scope, service: None };
            assert_eq!(of(&path), expected, "{path}");
        }
    }

    #[test]
    fn containers_without_a_pod() {
        for path in [
            format!("/docker/{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/kata_overhead/{ID}"),
        ] {
            assert_eq!(of(&path).container.as_deref(), Some(ID), "{path}");
        }
        for path in ["/docker/0123", "/podman/podcast", "/pod", "/tripod0123456789abcdef0123456789abcdef"] {
            assert_eq!(of(path), Cgroup::default(), "{path}");
        }
    }

    #[test]
    fn the_unified_hierarchy_comes_first() {
        let hybrid = b"5:cpu:/a.scope\n1:name=systemd:/b.scope\n0::/c.scope\n";
        assert_eq!(parse_cgroup(hybrid), scope("c"));
        let legacy = b"5:cpu:/a.scope\n1:name=systemd:/b.scope\n0::/\n";
        assert_eq!(parse_cgroup(legacy), scope("b"));
        assert_eq!(parse_cgroup(b"5:cpu:/a.scope\n"), scope("a"));
        assert_eq!(parse_cgroup(b"0::/cut.scope"), Cgroup::default());
    }

    proptest! {
        #[test]
        fn any_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse_cgroup(&bytes);
            let _ = of(&String::from_utf8_lossy(&bytes));
        }
    }
}
