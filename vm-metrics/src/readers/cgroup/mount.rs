//! Finds the mount of control groups (v2), and the group of a process below it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::host::Host;

/// A mount of cgroup v2. Like the paths of processes its root is as seen from the control group namespace of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is mounted.
    pub(super) directory: PathBuf,
    /// The group that is its root: `/`, or `/..` and the like where this process has a namespace of its own.
    root: PathBuf,
}

impl Mount {
    /// An error is the reason why there is no usable mount.
    pub(super) fn find(host: &Host) -> Result<Self, String> {
        let path = host.mounts();
        let table =
            fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mounts: Vec<Self> = table.lines().filter_map(Self::parse).collect();
        // In a container the host's are elsewhere than its own.
        let of_host = |mount: &&Self| mount.directory.starts_with(host.cgroups());
        let mount = mounts.iter().find(of_host).or(mounts.first()).cloned();
        let mount =
            mount.ok_or("no cgroup v2 is mounted: this host has v1, or the container does not show it")?;
        mount.check()?;
        Ok(mount)
    }

    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), root: "/".into() }
    }

    /// A line of `mountinfo`. One whose paths have spaces, which are escaped, is left out.
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.strip_prefix("cgroup2 ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, directory) = (words.next()?, words.next()?);
        (!mount.contains('\\')).then(|| Self { directory: directory.into(), root: root.into() })
    }

    /// On a host that has v1 as well, the controllers are with v1.
    fn check(&self) -> Result<(), String> {
        let path = self.directory.join("cgroup.controllers");
        let controllers = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "cgroup v2 is mounted where this process does not see it".to_owned(),
            _ => format!("cannot read {}: {error}", path.display()),
        })?;
        let has = |wanted| controllers.split_whitespace().any(|controller| controller == wanted);
        let is_hybrid = self.root == Path::new("/") && !has("cpu") && !has("memory");
        let reason = "this host has cgroup v1 for cpu and memory; the reader needs them in v2";
        if is_hybrid { Err(reason.to_owned()) } else { Ok(()) }
    }

    /// The path below the mount, for a group in `/proc/<pid>/cgroup`; `None` if the mount does not show the group.
    pub(super) fn below(&self, group: &Path) -> Option<PathBuf> {
        let below = group.strip_prefix(&self.root).ok()?;
        let is_below = below.components().all(|component| matches!(component, Component::Normal(_)));
        is_below.then(|| below.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str) -> Mount {
        Mount { directory: "/m".into(), root: root.into() }
    }

    #[test]
    fn groups_are_found_from_inside_a_container_too() {
        for (root, group, expected) in [
            ("/", "/system.slice/web.service", Some("system.slice/web.service")),
            ("/", "/", Some("")),
            // The daemon has a namespace of its own, and the mount is its own.
            ("/", "/../kubepods/pod1", None),
            ("/", "/../../other", None),
            // The mount is the host's.
            ("/../..", "/../../kubepods/pod1", Some("kubepods/pod1")),
            ("/../..", "/../..", Some("")),
            ("/../..", "/../other", None),
            ("/../..", "/below/its/own", None),
            ("/..", "/../../above", None),
            ("/machine.slice", "/machine.slice/a", Some("a")),
            ("/machine.slice", "/machine.slice2/a", None),
        ] {
            let below = mount(root).below(Path::new(group));
            assert_eq!(below.as_deref(), expected.map(Path::new), "{group} in {root}");
        }
    }

    #[test]
    fn lines_of_mountinfo_have_root_and_directory() {
        let line = "35 24 0:30 /../.. /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let expected = Mount { directory: "/sys/fs/cgroup".into(), root: "/../..".into() };
        assert_eq!(Mount::parse(line), Some(expected));
        assert_eq!(Mount::parse(&line.replace("cgroup2 ", "cgroup ")), None);
        assert_eq!(Mount::parse(&line.replace("/sys/fs", "/my\\040files")), None);
        assert_eq!(Mount::parse(""), None);
    }

    #[test]
    fn hosts_with_v1_have_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Host::new(dir.path().join("proc"), dir.path().join("sys"));
        let groups = host.cgroups();
        fs::create_dir_all(&groups).expect("directories");
        fs::create_dir_all(host.process_itself()).expect("directories");
        let problem = || Mount::find(&host).expect_err("a reason");
        assert!(problem().contains("mountinfo"), "{}", problem());
        fs::write(host.mounts(), "1 1 0:1 / /proc rw - proc proc rw\n").expect("mountinfo");
        assert!(problem().contains("no cgroup v2 is mounted"), "{}", problem());
        let line = format!("35 24 0:30 / {} rw - cgroup2 cgroup2 rw\n", groups.display());
        fs::write(host.mounts(), line).expect("mountinfo");
        assert!(problem().contains("does not see it"), "{}", problem());
        fs::write(groups.join("cgroup.controllers"), "hugetlb\n").expect("controllers");
        assert!(problem().contains("v1 for cpu and memory"), "{}", problem());
        fs::write(groups.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("controllers");
        assert_eq!(Mount::find(&host).map(|mount| mount.directory), Ok(groups));
    }
}
