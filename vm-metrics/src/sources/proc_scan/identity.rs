//! Who the VM of a process is, and what tells it from others that claim to be the same.

use std::fs;

use super::cmdline::{self, Basis, Identity, Surroundings, VmArgs, absolute};
use super::process::Process;
use crate::model::Hypervisor;
use crate::procfs::{Cgroup, parse_cgroup};
use crate::sources::files;
use crate::sources::fingerprints::Fingerprints;

/// A line for each hierarchy, with a path.
const CGROUP_LIMIT: u64 = 64 << 10;

/// Longer paths tell no more.
const MAX_PATHS: usize = 16;

/// Sets id and name by all that the process tells, and returns what tells the VM from others of this id.
pub fn identify(
    process: &Process,
    hypervisor: Hypervisor,
    argv: &[String],
    args: &mut VmArgs,
) -> Fingerprints {
    let mut identity = cmdline::identity(hypervisor, argv);
    identity.paths.truncate(MAX_PATHS);
    let place = surroundings(process);
    let (id, basis) = identity.id(&place);
    args.id = id;
    args.name = identity.name(&place);
    fingerprints(&identity, basis, &place)
}

/// What may not be read is not known.
fn surroundings(process: &Process) -> Surroundings {
    let cwd = fs::read_link(process.path("cwd")).ok();
    let content = files::read_start(&process.path("cgroup"), CGROUP_LIMIT).unwrap_or_default();
    let Cgroup { pod, service, scope, .. } = parse_cgroup(&content);
    Surroundings {
        cwd: cwd.map(|cwd| cwd.to_string_lossy().into_owned()),
        pod,
        service: service.and_then(lasting),
        scope: scope.and_then(lasting),
    }
}

/// A unit as it is called the next time, too. Those that systemd names by itself are others then.
fn lasting(unit: String) -> Option<String> {
    (!unit.starts_with("run-")).then(|| without_number(unit))
}

/// libvirt's `machine-qemu-7-web` has the number of this run.
fn without_number(unit: String) -> String {
    let mut parts = unit.splitn(4, '-');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some("machine"), Some(driver), Some(number), Some(name)] if is_number(number) => {
            format!("machine-{driver}-{name}")
        }
        _ => unit,
    }
}

/// A UUID is of one VM, unless two of them have different names. A name may be anybody's in another place.
fn fingerprints(identity: &Identity, basis: Basis, place: &Surroundings) -> Fingerprints {
    let text = |fact: &Option<String>| fact.clone().unwrap_or_default();
    let name = identity.given.clone().or_else(|| identity.name.clone()).unwrap_or_default();
    let mut paths: Vec<_> = identity.paths.iter().map(|path| absolute(path, place)).collect();
    paths.sort_unstable();
    let (cwd, service) = (text(&place.cwd), text(&place.service));
    // Who has no path of its own is known by where it was started.
    let location = if paths.is_empty() { vec![cwd.clone(), service.clone()] } else { paths };
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
}
