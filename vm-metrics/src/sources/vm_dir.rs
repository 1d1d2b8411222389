//! Source `vm_dir`: a directory of files that declare one VM each.
//!
//! A file appears by a rename or by writing in place. Half a file changes nothing.

use std::path::{Path, PathBuf};

use super::error::json_problem;
use super::{DirConfig, Listing, Precedence, Source, SourceContext, SourceDef, SourceError, configured_path};
use crate::sources::declared::DeclaredVm;
use crate::sources::declared::pid_guard::PidGuard;
use crate::sources::files::watched::WatchedFiles;

const DEFAULT_DIR: &str = "/run/vm-metrics/vms";

/// One VM is a few hundred bytes.
const FILE_LIMIT: u64 = 64 << 10;

pub const SOURCE: SourceDef = SourceDef {
    name: "vm_dir",
    help: "files in a directory that describe one VM each",
    precedence: Precedence::Declared,
    config: r#"# VMs that the files of a directory declare: *.toml or *.json with the same keys, one VM each. The default of the id is
# the name of the file. Each tick reads the files that have changed.
[sources.vm_dir]
enabled = "auto"
# dir = "/run/vm-metrics/vms"
"#,
    configure: |section, context| {
        let config: DirConfig = section.options()?;
        let dir = configured_path(&context.host, config.dir, DEFAULT_DIR);
        Ok(dir.map(|dir| Box::new(VmDir::new(dir, context)) as _))
    },
};

#[derive(Debug)]
struct VmDir {
    context: SourceContext,
    dir: PathBuf,
    files: WatchedFiles<(DeclaredVm, PidGuard)>,
}

impl VmDir {
    fn new(dir: PathBuf, context: &SourceContext) -> Self {
        let files = WatchedFiles::new(context.operators.clone(), FILE_LIMIT);
        Self { context: context.clone(), dir, files }
    }
}

impl Source for VmDir {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut listing = Listing::default();
        let mut paths = self.files.names(&self.dir, &mut listing.problems)?;
        paths.retain(|path| format_of(path).is_some());
        let parse = |path: &Path, content: &[u8]| Ok((parse(path, content)?, PidGuard::default()));
        for (path, (vm, guard)) in self.files.look(paths, &mut listing.problems, parse) {
            vm.list(&self.context, Some(path), guard, &mut listing);
        }
        Ok(listing)
    }
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Toml,
    Json,
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "toml" => Some(Format::Toml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Without an id the VM has the file's name. An empty file is valid TOML, but a program may be about to write it.
fn parse(path: &Path, content: &[u8]) -> Result<DeclaredVm, String> {
    let text = str::from_utf8(content).map_err(|_| "not UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Err("empty, or not written yet".to_owned());
    }
    let mut vm: DeclaredVm = match format_of(path) {
        Some(Format::Json) => serde_json::from_str(text).map_err(|error| json_problem(&error))?,
        _ => toml::from_str(text).map_err(|error| toml_problem(text, &error))?,
    };
    if vm.id.is_empty() {
        vm.id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    vm.check()?;
    Ok(vm)
}

/// Where TOML is not as it should be. Nothing of it is quoted.
fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!("bad TOML or an unexpected value at line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::proc_scan::fixture::{Fake, Fixture};
    use super::*;
    use crate::model::{InstanceInfo, Nic};
    use crate::sources::tests::listed;

    #[test]
    fn each_file_is_a_vm_while_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let host = Fixture::with(&[Fake { pid: 42, ..Fake::QEMU }]);
        let mut source = VmDir::new(dir.path().to_owned(), &host.context());
        fs::write(dir.path().join("web.toml"), "taps = [\"tap0\"]\nvcpus = 2\npid = 42\n").unwrap();
        fs::write(dir.path().join("b.json"), r#"{"id": "db", "name": "DB", "memory_bytes": 1024}"#).unwrap();
        fs::write(dir.path().join("README"), "not a VM").unwrap();
        fs::write(dir.path().join(".c.toml"), "half a").unwrap();
        let db = InstanceInfo {
            id: "db".into(),
            name: "DB".into(),
            allocated_memory_bytes: Some(1024),
            ..InstanceInfo::default()
        };
        let web = InstanceInfo {
            id: "web".into(),
            name: "web".into(),
            hypervisor_pid: Some(42),
            nics: vec![Nic::local("tap0")],
            allocated_vcpus: Some(2),
            ..InstanceInfo::default()
        };
        assert_eq!(listed(&mut source), (vec![db.clone(), web], vec![]));
        fs::remove_file(dir.path().join("web.toml")).unwrap();
        assert_eq!(listed(&mut source), (vec![db], vec![]));
        drop(dir);
        assert!(matches!(source.list(), Err(SourceError::Absent { .. })));
    }

    /// A program that writes in place empties the file first.
    #[test]
    fn an_emptied_file_keeps_its_former_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = VmDir::new(dir.path().to_owned(), &Fixture::new().context());
        let file = dir.path().join("web.toml");
        for (content, vcpus) in [("", None), ("vcpus = 2", Some(2)), ("", Some(2)), ("vcpus = 3", Some(3))] {
            fs::write(&file, content).unwrap();
            let (vms, problems) = listed(&mut source);
            assert_eq!(vms.first().map(|vm| vm.allocated_vcpus), vcpus.map(Some), "{content:?}");
            assert_eq!(problems.len(), usize::from(content.is_empty()), "{problems:?}");
        }
    }

    /// The message has its place, and the other files count.
    #[test]
    fn a_bad_file_is_one_problem() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = VmDir::new(dir.path().to_owned(), &Fixture::new().context());
        fs::write(dir.path().join("good.toml"), "vcpus = 1").unwrap();
        let bad = dir.path().join("z.toml");
        for (content, problem) in [
            (&b"\n"[..], "empty, or not written yet"),
            (b"id = 1", "bad TOML or an unexpected value at line 1, column 6"),
            (b"id = \"a\"\ntap = \"t\"", "unexpected value at line 2, column 1"),
            (b"id = ", "at line 1"),
            (b"root:$6$secret:1::", "at line 1"),
            (b"taps = [\"a/b\"]", "unexpected value at line 1, column 8"),
            (b"taps = [\"a\", \"a\"]", "the TAP \"a\" of \"z\" is there twice"),
            (b"pid = 0", "pid 0 of \"z\" is no process"),
            (b"\xff", "not UTF-8"),
        ] {
            fs::write(&bad, content).unwrap();
            let (vms, problems) = listed(&mut source);
            assert_eq!((vms.len(), problems.len()), (1, 1), "{problems:?}");
            let says =
                problems[0].starts_with(&format!("{}: ", bad.display())) && problems[0].contains(problem);
            let repeats = problems[0].contains('\n') || problems[0].contains("secret");
            assert!(says && !repeats, "{problems:?} without {problem:?}");
        }
        fs::rename(&bad, bad.with_extension("json")).unwrap();
        let (_, problems) = listed(&mut source);
        assert!(problems[0].contains("z.json: not UTF-8"), "{problems:?}");
        fs::write(bad.with_extension("json"), "{\"vcpus\": -1}").unwrap();
        let (_, problems) = listed(&mut source);
        assert!(
            problems[0].contains("z.json: ") && problems[0].contains("at line 1, column"),
            "{problems:?}"
        );
    }
}
