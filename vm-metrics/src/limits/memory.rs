//! Compares the memory limits of the daemon with its minimum.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use super::LimitError;
use crate::host::Host;

/// For a daemon without VMs in a control group. With 32 MiB the kernel already refuses a map, and 34 MiB are used at most
/// (`memory.max_usage_in_bytes` of a group in which `vm-metrics serve` starts and is scraped).
const RESIDENT: u64 = 40 << 20;

/// For a daemon without VMs: `prlimit --data=30M vm-metrics serve` is the least that does not end in an allocation.
const DATA: u64 = 40 << 20;

/// Address space beyond the mappings at the start: `prlimit --as=56M` suffices for a program of 20 MiB, 48 MiB do not.
const ADDRESS_SPACE: u64 = 48 << 20;

/// `maps` is the size of the maps of the eBPF programs, which count for the control group.
pub(super) fn check(host: &Host, maps: u64) -> Result<(), LimitError> {
    let mapped = mapped(host).unwrap_or_default();
    for (resource, what, needed, key) in [
        (Resource::As, "address space", mapped + ADDRESS_SPACE + maps, "LimitAS= of the service, ulimit -v"),
        (Resource::Data, "data", DATA, "LimitDATA= of the service, ulimit -d"),
    ] {
        let limit = getrlimit(resource).current;
        refuse_less(limit, needed, || what.to_owned(), key)?;
    }
    let Some((group, limit)) = group_limit(host) else { return Ok(()) };
    let what = || format!("memory of the control group {}", group.display());
    refuse_less(Some(limit), RESIDENT + maps, what, "MemoryMax= of the service")
}

fn refuse_less(
    limit: Option<u64>,
    needed: u64,
    what: impl FnOnce() -> String,
    key: &'static str,
) -> Result<(), LimitError> {
    match limit.filter(|limit| *limit < needed) {
        Some(limit) => Err(LimitError::Memory { what: what(), limit, needed, key }),
        None => Ok(()),
    }
}

/// The address space that this process has now.
fn mapped(host: &Host) -> Option<u64> {
    let statm = fs::read_to_string(host.process_itself().join("statm")).ok()?;
    let pages: u64 = statm.split(' ').next()?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// The control group with the least memory of those that this process is in, and its limit.
fn group_limit(host: &Host) -> Option<(PathBuf, u64)> {
    let groups = fs::read_to_string(host.process_itself().join("cgroup")).ok()?;
    let root = host.cgroups();
    let limits = groups.lines().filter_map(memory_group).flat_map(|(controller, group, file)| {
        let root = root.join(controller);
        // Inside a container the path of the group may be missing, but its parents exist.
        let above = group.ancestors().map(|group| root.join(group)).collect::<Vec<_>>();
        above.into_iter().filter_map(move |group| Some((limit(&group.join(file))?, group)))
    });
    limits.min().map(|(limit, group)| (group, limit))
}

/// The directory of the hierarchy, the group in it, and the file with its limit; of a line such as `4:memory:/a/b`.
fn memory_group(line: &str) -> Option<(&'static str, PathBuf, &'static str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let named = Path::new(group).components().filter(|part| matches!(part, Component::Normal(_)));
    let group: PathBuf = named.collect();
    match controllers {
        "" => Some(("", group, "memory.max")),
        controllers if controllers.split(',').any(|one| one == "memory") => {
            Some(("memory", group, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// `None` without a limit: `max` in version 2, a huge number in version 1.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host on which this process is in these groups, with these limits.
    fn host(dir: &Path, groups: &str, limits: &[(&str, &str)]) -> Host {
        let host = Host::new(dir.join("proc"), dir.join("sys"));
        let write = |path: PathBuf, content: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write(host.process_itself().join("cgroup"), groups);
        for (file, limit) in limits {
            write(host.cgroups().join(file), limit);
        }
        host
    }

    #[test]
    fn the_smallest_limit_above_counts() {
        let found = |groups: &str, limits: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            group_limit(&host(dir.path(), groups, limits)).map(|(_, limit)| limit)
        };
        let v2 = &[("a/b/memory.max", "max\n"), ("a/memory.max", "25165824\n"), ("memory.max", "30000000\n")];
        assert_eq!(found("0::/a/b\n", v2), Some(25_165_824));
        assert_eq!(found("0::/\n", &v2[..2]), None);
        let v1 = &[
            ("memory/x/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.limit_in_bytes", "77\n"),
        ];
        assert_eq!(found("4:cpu,memory:/x\n0::/\n", v1), Some(77));
        assert_eq!(found("5:devices:/x\n", v1), None);
        assert_eq!(found("0::/../../elsewhere\n", &[("memory.max", "5")]), Some(5));
    }

    #[test]
    fn a_small_memory_limit_is_refused_with_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), "0::/s\n", &[("s/memory.max", "25165824")]);
        let error = check(&host, 1 << 20).unwrap_err().to_string();
        assert!(error.starts_with("the limit of memory of the control group "), "{error}");
        assert!(
            error.ends_with("/s is 24 MiB: at least 41 MiB are needed (MemoryMax= of the service)"),
            "{error}"
        );
    }
}
