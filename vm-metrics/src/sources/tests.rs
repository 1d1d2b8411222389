//! Tests of the table of sources, their sections and their rounds.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::merge::precedence::{FACTS, NICS};
use super::polling::KEEP_LISTING;
use super::*;
use crate::config::Config;

/// The VMs and the problems of a source.
pub fn listed(source: &mut impl Source) -> (Vec<InstanceInfo>, Vec<String>) {
    let listing = source.list().unwrap();
    let problems = listing.texts();
    (listing.instances, problems)
}

impl Listing {
    /// Those of the problems.
    pub fn texts(&self) -> Vec<String> {
        self.problems.iter().map(ToString::to_string).collect()
    }
}

/// Lists what it is given, or fails.
struct Fake(Option<Vec<InstanceInfo>>);

impl Source for Fake {
    fn list(&mut self) -> Result<Listing, SourceError> {
        let instances = self
            .0
            .clone()
            .ok_or_else(|| SourceError::io("list", "/proc", io::Error::from_raw_os_error(24)))?;
        let problems = vec![SourceError::process(5, "odd")];
        Ok(Listing { instances, problems, ..Listing::default() })
    }
}

/// A [`Fake`] whose listing the test changes.
struct ChangingFake(Arc<Mutex<Option<Vec<InstanceInfo>>>>);

impl Source for ChangingFake {
    fn list(&mut self) -> Result<Listing, SourceError> {
        Fake(self.0.lock().unwrap().clone()).list()
    }
}

fn vm(id: &str, pid: u32) -> InstanceInfo {
    InstanceInfo { id: id.into(), name: "n".into(), hypervisor_pid: Some(pid), ..InstanceInfo::default() }
}

#[test]
fn a_failing_source_hinders_no_other() {
    let mut sources = Sources::new(vec![
        ("first", Box::new(Fake(None))),
        ("second", Box::new(Fake(Some(vec![vm("a", 1), vm("a", 2)])))),
    ]);
    let (set, reports) = sources.list();
    let pids: Vec<_> = set.vms.iter().map(|vm| vm.hypervisor_pid).collect();
    assert_eq!(pids, [Some(1), Some(2)]);
    let error = reports[0].result.as_ref().unwrap_err().to_string();
    assert_eq!(error, "cannot list /proc: Too many open files (os error 24)");
    assert_eq!((reports[1].name, *reports[1].result.as_ref().unwrap()), ("second", 2));
    assert_eq!(reports[1].problems.len(), 3);
    assert_eq!(reports[1].problems[0], "process 5: odd");
    assert!(reports[1].problems[1].starts_with("two VMs with the id \"a\": one is \"a-"));
}

#[test]
fn a_failing_source_keeps_its_vms_for_now() {
    let listing = Arc::new(Mutex::new(Some(vec![vm("a", 1)])));
    let mut sources = Sources::new(vec![("flaky", Box::new(ChangingFake(listing.clone())))]);
    let start = Instant::now();
    let mut ids = |seconds| -> (Vec<String>, bool) {
        let (set, reports) = sources.list_at(start + Duration::from_secs(seconds));
        (set.vms.into_iter().map(|vm| vm.id).collect(), reports[0].result.is_ok())
    };
    let kept = KEEP_LISTING.as_secs();
    assert_eq!(ids(0), (vec!["a".to_owned()], true));
    *listing.lock().unwrap() = None;
    assert_eq!(ids(1), (vec!["a".to_owned()], false));
    assert_eq!(ids(kept - 1), (vec!["a".to_owned()], false));
    assert_eq!(ids(kept), (vec![], false));
    *listing.lock().unwrap() = Some(vec![]);
    assert_eq!(ids(kept + 1), (vec![], true));
    *listing.lock().unwrap() = None;
    assert_eq!(ids(kept + 2), (vec![], false));
}

#[test]
fn every_source_has_an_entry_of_its_own() {
    let names: HashSet<_> = SOURCES.iter().map(|source| source.name).collect();
    assert_eq!(names.len(), SOURCES.len(), "two sources of the same name");
    for SourceDef { name, help, .. } in SOURCES {
        assert!(
            !help.is_empty() && !help.ends_with('.'),
            "{name}: a help of one sentence without a full stop"
        );
    }
}

#[test]
fn default_toml_has_every_source() {
    for SourceDef { name, config, .. } in SOURCES {
        let section = format!("[sources.{name}]\nenabled = \"auto\"\n");
        assert!(config.contains(&section), "the entry of {name} has no {section} in `config`");
    }
    let sections: Vec<_> = SOURCES.iter().map(|source| source.config).collect();
    let sections = format!("\n{}\n", sections.join("\n"));
    assert_written(
        "src/config/default.toml",
        ("false switches the source off.\n", "# Readers measure"),
        &sections,
    );
}

#[test]
fn the_documentation_has_every_source() {
    const PAGE: &str = "../docs/sources.md";
    let row = |cells: &[&str]| format!("| {} |", cells.join(" | "));
    let order = |precedences: [Precedence; 5]| precedences.map(Precedence::as_str).join(" | ");
    let ranks = [row(&["TAPs", &order(NICS)]), row(&["everything else", &order(FACTS)])];
    assert_written(PAGE, ("| 5th |\n|---|---|---|---|---|---|\n", "\n\n"), &ranks.join("\n"));
    let sources = FACTS.map(|precedence| {
        let sources = SOURCES.iter().filter(|source| source.precedence == precedence);
        let names: Vec<_> = sources.map(|source| format!("`{}`", source.name)).collect();
        row(&[precedence.as_str(), &names.join(", ")])
    });
    assert_written(PAGE, ("| precedence | sources |\n|---|---|\n", "\n\n"), &sources.join("\n"));
    let page = include_str!("../../../docs/sources.md");
    for SourceDef { name, .. } in SOURCES {
        assert!(page.contains(&format!("\n### `{name}`\n")), "docs/sources.md has no section ### `{name}`");
    }
}

/// Between two marks a file has this text. `UPDATE_GOLDEN=1` writes it.
fn assert_written(file: &str, (from, to): (&str, &str), expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_at(text.find(from).unwrap() + from.len());
    let (written, tail) = tail.split_at(tail.find(to).unwrap());
    if written != expected {
        assert!(env::var_os("UPDATE_GOLDEN").is_some(), "{file} is not as SOURCES: run with UPDATE_GOLDEN=1");
        fs::write(&path, [head, expected, tail].concat()).unwrap();
    }
}

fn configured(text: &str) -> Result<Sources, ConfigError> {
    let config = Config::parse(Path::new("test.toml"), text)?;
    configure(config.sources, &SourceContext::default())
}

#[test]
fn sections_turn_sources_on_and_off() {
    let names = |text: &str| -> Vec<&str> {
        configured(text).expect("a good config").sources.iter().map(|source| source.name).collect()
    };
    let mut all: Vec<_> = SOURCES.iter().map(|source| source.name).collect();
    all.retain(|name| *name != "static_list");
    assert_eq!(names(""), all, "of the same precedence in the order of the table");
    let rest: Vec<_> = all.iter().copied().filter(|name| !["hypeman", "proc_scan"].contains(name)).collect();
    assert_eq!(names("[sources]\nproc_scan.enabled = false\nhypeman.enabled = false"), rest);
    assert_eq!(names("[[sources.static_list.vms]]\nid = \"a\"")[..2], ["static_list", "vm_dir"]);
    for on in ["true", "\"auto\""] {
        assert_eq!(names(&format!("[sources.proc_scan]\nenabled = {on}")), names(""));
    }
    assert_eq!(configured("").expect("a good config").switched_off(), ["static_list"]);
}

#[test]
fn bad_sections_are_refused_with_line_and_key() {
    for (text, expected) in [
        ("[sources.proc_scan]\nenable = false", ["test.toml:2", "enable"]),
        ("[sources.proc_scan]\nenabled = 1", ["test.toml:2", "enabled must be \"auto\", true or false"]),
        (
            "[sources.proc_scan]\nenabled = \"yes\"",
            ["test.toml:2", "enabled must be \"auto\", true or false"],
        ),
        ("[sources.vm_dir]\ndirs = \"/x\"", ["test.toml:2", "dirs"]),
        ("[sources.qemu_qmp]\nsockets = [\"/run/***\"]", ["test.toml:2", "\"/run/***\""]),
        ("[sources.firecracker]\nsockets = []", ["test.toml:2", "sockets"]),
        ("[sources.push]\nsocket = \"push.sock\"", ["test.toml:2", "push.sock is not an absolute path"]),
        ("[sources.hypeman]\ndata_dir = 1", ["test.toml:2", "sources.hypeman"]),
        ("[sources.libvirt]\nuri = \"qemu:///system\"", ["test.toml:2", "uri"]),
        ("\n[sources.procscan]", ["test.toml:2", "procscan"]),
        ("sources = 1", ["test.toml:1", "sources"]),
        ("[[sources.static_list.vms]]\nname = \"a\"", ["test.toml:1", "id"]),
        ("[sources.static_list]\nvms = [{ id = \"a\" }, { id = \"a\" }]", ["test.toml:2", "twice"]),
        ("[sources.static_list]\nvms = [{ id = \"a\", taps = [\"../x\"] }]", ["test.toml:2", "\"../x\""]),
        (
            "[sources.static_list]\nvms = [{ id = \"a\", taps = [\"t0\", \"t0\"] }]",
            ["test.toml:2", "the TAP \"t0\" of \"a\" is there twice"],
        ),
        (
            "[sources.static_list]\nvms = [{ id = \"a\", taps = [\"t0\"] }, { id = \"b\", taps = [\"t1\", \"t0\"] }]",
            ["test.toml:2", "the TAP \"t0\" is given to \"a\" and to \"b\""],
        ),
        ("[sources.static_list]\nvms = [{ id = \"a\", pid = -1 }]", ["test.toml:2", "pid"]),
    ] {
        let error = configured(text).expect_err("must be refused").to_string();
        for part in expected {
            assert!(error.contains(part), "{text:?} gives {error:?} without {part:?}");
        }
    }
}

#[test]
fn device_names() {
    for name in ["tap0", "vnet-1.2", "hype-01234567", "a23456789012345", "тап"] {
        assert!(crate::model::is_device_name(name), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a b", "a\n", "a:1", "a\0", "a234567890123456"] {
        assert!(!crate::model::is_device_name(name), "{name:?}");
    }
}
