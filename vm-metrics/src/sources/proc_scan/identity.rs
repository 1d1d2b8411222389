//! Id, name and fingerprints of a VM, from its process.

use std::fs;
use std::ops::RangeInclusive;

use super::cmdline::{Basis, Identity, Surroundings, absolute};
use crate::procfs::{Cgroup, kubernetes_pod, parse_cgroup};
use crate::sources::files;
use crate::sources::merge::fingerprints::Fingerprints;
use crate::sources::process::ProcessDir;
use crate::sources::values::uuid;

/// The root is among the first mounts.
const MOUNTS_LIMIT: u64 = 256 << 10;

/// More paths add no evidence.
const MAX_PATHS: usize = 16;

/// A path with this in it is on the command line of each QEMU of KubeVirt.
const KUBEVIRT: &str = "/kubevirt-private/";

/// The longest name that Kubernetes accepts.
const MAX_NAMESPACE: usize = 63;

/// Id and name of the VM, and the fingerprints that distinguish VMs of this id.
pub fn identify(
    process: &ProcessDir,
    mut identity: Identity,
) -> (Option<String>, Option<String>, Fingerprints) {
    identity.paths.truncate(MAX_PATHS);
    let place = surroundings(process);
    let (id, basis) = identity.id(&place);
    (id, identity.name(&place), fingerprints(&identity, basis, &place))
}

/// The UID of the pod of Kubernetes in which the process runs.
pub fn pod_uid(process: &ProcessDir) -> Option<String> {
    kubernetes_pod(&process.cgroup())
}

/// The namespace in a name of KubeVirt, `<namespace>_<VM>`. Only the process claims it.
pub fn namespace(argv: &[String], name: &str) -> Option<String> {
    let (namespace, _) = name.split_once('_').filter(|_| argv.iter().any(|word| word.contains(KUBEVIRT)))?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_namespace = (1..=MAX_NAMESPACE).contains(&namespace.len()) && namespace.bytes().all(is_allowed);
    is_namespace.then(|| namespace.to_owned())
}

/// Unreadable facts are `None`.
fn surroundings(process: &ProcessDir) -> Surroundings {
    let cwd = fs::read_link(process.path("cwd")).ok();
    let Cgroup { pod, service, scope, .. } = parse_cgroup(&process.cgroup());
    Surroundings {
        cwd: cwd.map(|cwd| cwd.to_string_lossy().into_owned()),
        root: root(process),
        pod,
        service: service.and_then(lasting),
        scope: scope.and_then(lasting),
    }
}

/// The link of a jailed root reads `/`; the list of mounts has the directory.
fn root(process: &ProcessDir) -> Option<String> {
    let link = fs::read_link(process.path("root")).ok().map(|root| root.to_string_lossy().into_owned());
    link.filter(|root| root != "/").or_else(|| {
        let mounts = files::read_start(&process.path("mountinfo"), MOUNTS_LIMIT).ok()?;
        let mounts = String::from_utf8_lossy(&mounts);
        let mut roots = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            fields.next().zip(fields.next()).filter(|(_, place)| *place == "/").map(|(root, _)| root)
        });
        roots.next_back().map(str::to_owned)
    })
}

/// The jailer's `<base>/<program>/<id>/root`. Other roots are the host's or a container's, and change with its versions.
fn is_jail(root: &str, name: &str) -> bool {
    let mut components = root.rsplit('/');
    components.next() == Some("root") && components.next().is_some_and(|id| uuid::canonical(id) == name)
}

/// A path as it is the next time, too. `None` where a part of it is made up at each start.
fn lasting_path(path: &str) -> Option<String> {
    let components = path.split('/').map(|component| {
        let mut parts = component.splitn(3, '-');
        match [parts.next(), parts.next(), parts.next()] {
            _ if is_made_up(component) => None,
            // libvirt's `domain-7-web` has the number of this run.
            [Some("domain"), Some(number), Some(name)] if is_number(number) => Some(format!("domain-{name}")),
            _ => Some(component.to_owned()),
        }
    });
    components.collect::<Option<Vec<_>>>().map(|components| components.join("/"))
}

/// Made by `mktemp`, by libraries like it, or by Firecracker's SDK.
fn is_made_up(component: &str) -> bool {
    let is_random = |text: &str, lengths: RangeInclusive<usize>| {
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        lengths.contains(&text.len()) && text.bytes().all(is_one)
    };
    if let Some(text) = component.strip_prefix("tmp.") {
        return is_random(text, 6..=16);
    }
    let text = component.trim_start_matches('.').strip_prefix("tmp");
    text.is_some_and(|text| is_random(text, 6..=6) || is_random(text, 8..=8))
        || component.starts_with(".firecracker.sock-")
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// A unit as it is called the next time, too. Those that systemd names by itself are others then. libvirt's
/// `machine-qemu-7-web` has the number of this run.
fn lasting(unit: String) -> Option<String> {
    let mut parts = unit.splitn(4, '-');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some("run"), Some(_), ..] => None,
        [Some("machine"), Some(driver), Some(number), Some(name)] if is_number(number) => {
            Some(format!("machine-{driver}-{name}"))
        }
        _ => Some(unit),
    }
}

/// A UUID means one VM, unless two VMs have it with different names. Another directory may have the same name.
fn fingerprints(identity: &Identity, basis: Basis, place: &Surroundings) -> Fingerprints {
    let text = |fact: &Option<String>| fact.clone().unwrap_or_default();
    let name = identity.given.clone().or_else(|| identity.name.clone()).unwrap_or_default();
    let paths = identity.paths.iter().filter_map(|path| lasting_path(&absolute(path, place)));
    let mut location: Vec<_> = paths.collect();
    location.sort_unstable();
    let (cwd, service) = (text(&place.cwd), text(&place.service));
    if location.is_empty() {
        // Who has no path of its own is known by where it was started.
        location = vec![lasting_path(&cwd).unwrap_or_default(), service.clone()];
    }
    let jail = place.root.as_ref().filter(|root| is_jail(root, &name));
    location.extend(jail.and_then(|root| lasting_path(root)));
    let always = match basis {
        Basis::Uuid => vec![name],
        Basis::Name | Basis::Socket => location.clone(),
        Basis::Given | Basis::Pod | Basis::Nothing => Vec::new(),
    };
    let mut beside_others = vec![text(&identity.given), text(&identity.name)];
    beside_others.extend(location);
    let changing = [cwd, text(&place.pod), service, text(&place.scope)];
    Fingerprints::new([&texts(&always), &texts(&beside_others), &texts(&changing)])
}

fn texts(facts: &[String]) -> Vec<&str> {
    facts.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lasting_units_count() {
        for (unit, expected) in [
            ("microvm@web", Some("microvm@web")),
            ("121", Some("121")),
            ("run-r12", None),
            ("machine-qemu-7-web", Some("machine-qemu-web")),
            ("machine-qemu-8-web-2", Some("machine-qemu-web-2")),
            ("machine-qemu-web", Some("machine-qemu-web")),
        ] {
            assert_eq!(lasting(unit.to_owned()).as_deref(), expected, "{unit}");
        }
    }

    #[test]
    fn kubevirt_names_begin_with_the_namespace() {
        let kubevirt =
            ["qemu-kvm", "file=/var/run/kubevirt-private/libvirt/master-key.aes"].map(str::to_owned);
        assert_eq!(namespace(&kubevirt, "team-a_web_1").as_deref(), Some("team-a"));
        for name in ["web", "_web", "Team_web", "a.b_web", &format!("{}_web", "a".repeat(64))] {
            assert_eq!(namespace(&kubevirt, name), None, "{name}");
        }
        assert_eq!(namespace(&["qemu-kvm".to_owned()], "team-a_web"), None, "not of KubeVirt");
    }
}
