//! A record of libvirt: `<domstatus>`, and in it the domain. Pure.

use roxmltree::{Document, Node, ParsingOptions};

use super::interfaces::{taps, unmonitored};
use super::xml::{child, devices};
use crate::model::{UnmonitoredNic, VmState};

/// A record has some hundred elements.
const MAX_NODES: u32 = 100_000;

/// Where OpenStack's Nova puts its metadata; versions follow.
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/";

/// A domain, as far as it is of use here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    pub pid: u32,
    pub uuid: String,
    pub name: String,
    pub vcpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// Memory after the balloon; `None` without a balloon.
    pub actual_memory_bytes: Option<u64>,
    pub taps: Vec<String>,
    /// NICs that are no device of the host, and PCI devices that may be NICs.
    pub unmonitored: Vec<UnmonitoredNic>,
    pub state: Option<VmState>,
    pub project: Option<String>,
}

pub fn parse(content: &[u8]) -> Result<Domain, String> {
    let text = str::from_utf8(content).map_err(|_| "not UTF-8".to_owned())?;
    // No DTD, so no entity that stands for a million others.
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| problem(&error))?;
    let status = document.root_element();
    if !status.has_tag_name("domstatus") {
        return Err("it does not begin with <domstatus>".to_owned());
    }
    let pid = status.attribute("pid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0);
    let domain = child(status, "domain").ok_or("no <domain>")?;
    let required = |name| text_of(domain, name).ok_or_else(|| format!("no <{name}> in <domain>"));
    Ok(Domain {
        pid: pid.ok_or("no pid in <domstatus>")?,
        uuid: required("uuid")?,
        name: required("name")?,
        vcpus: vcpus(domain),
        memory_bytes: memory(domain),
        actual_memory_bytes: has_balloon(domain)
            .then(|| child(domain, "currentMemory").and_then(bytes))
            .flatten(),
        taps: taps(domain),
        unmonitored: unmonitored(domain),
        state: status.attribute("state").and_then(state),
        project: project(domain),
    })
}

/// Where the XML is not as it should be. Nothing of it is quoted.
fn problem(error: &roxmltree::Error) -> String {
    let position = error.pos();
    format!("bad XML at line {}, column {}", position.row, position.col)
}

fn state(said: &str) -> Option<VmState> {
    match said {
        "running" | "blocked" => Some(VmState::Running),
        "paused" | "pmsuspended" => Some(VmState::Paused),
        "shutdown" | "shutoff" | "crashed" => Some(VmState::Stopped),
        _ => None,
    }
}

fn text_of(node: Node, name: &str) -> Option<String> {
    child(node, name)?.text().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// `current` are those that are plugged in, the text those that there is room for.
fn vcpus(domain: Node) -> Option<u32> {
    let vcpu = child(domain, "vcpu")?;
    vcpu.attribute("current").or(vcpu.text())?.trim().parse().ok()
}

/// libvirt writes KiB; other units are those of its documentation.
fn bytes(memory: Node) -> Option<u64> {
    let unit = match memory.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KiB" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    memory.text()?.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// `<memory>` contains all of each module, also what is not plugged in or is no memory.
fn memory(domain: Node) -> Option<u64> {
    let all = child(domain, "memory").and_then(bytes)?;
    devices(domain, "memory").try_fold(all, |sum, module| sum.checked_sub(no_memory(module)?))
}

/// Bytes of a module in `<memory>` that are no memory of the guest.
fn no_memory(module: Node) -> Option<u64> {
    let size = |name| child(child(module, "target")?, name).and_then(bytes);
    match module.attribute("model") {
        Some("virtio-mem") => size("size")?.checked_sub(size("current")?),
        Some("nvdimm" | "sgx-epc" | "virtio-pmem") => size("size"),
        _ => Some(0),
    }
}

fn has_balloon(domain: Node) -> bool {
    devices(domain, "memballoon").next().is_some_and(|balloon| balloon.attribute("model") != Some("none"))
}

/// Nova's project: its id, which does not change, else its name.
fn project(domain: Node) -> Option<String> {
    let metadata = child(domain, "metadata")?;
    let is_project = |node: &Node| {
        let tag = node.tag_name();
        tag.name() == "project" && tag.namespace().is_some_and(|namespace| namespace.starts_with(NOVA))
    };
    let project = metadata.descendants().find(is_project)?;
    let id = project.attribute("uuid").or(project.text())?.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by libvirt 9.0.0; the list of QEMU's capabilities is cut.
    pub const REAL: &str = include_str!("status.xml");

    #[test]
    fn a_real_record() {
        let expected = Domain {
            pid: 5854,
            uuid: "01234567-89ab-4cde-8f01-23456789abcd".into(),
            name: "web 1".into(),
            vcpus: Some(1),
            memory_bytes: Some(96 << 20),
            actual_memory_bytes: Some(96 << 20),
            taps: vec!["vnet0".into()],
            unmonitored: vec![],
            state: Some(VmState::Running),
            project: Some("fedcba9876543210fedcba9876543210".into()),
        };
        assert_eq!(parse(REAL.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_was_plugged_and_what_the_balloon_took() {
        let changed = |from: &str, to: &str| parse(REAL.replace(from, to).as_bytes()).unwrap();
        assert_eq!(changed(" current='1'", "").vcpus, Some(2));
        let current = "<currentMemory unit='KiB'>65536<";
        assert_eq!(changed("<currentMemory unit='KiB'>98304<", current).actual_memory_bytes, Some(64 << 20));
        let none = changed("<memballoon model='virtio'>", "<memballoon model='none'>");
        assert_eq!((none.actual_memory_bytes, none.memory_bytes), (None, Some(96 << 20)));
        assert_eq!(changed("<memory unit='KiB'>98304<", "<memory unit='GiB'>1<").memory_bytes, Some(1 << 30));
        assert_eq!(changed("<memory unit='KiB'>98304<", "<memory unit='x'>1<").memory_bytes, None);
        assert_eq!(changed("state='running'", "state='paused'").state, Some(VmState::Paused));
        assert_eq!(changed("state='running'", "state='nostate'").state, None);
        assert_eq!(changed("dev='vnet0'", "dev='../lo'").taps, [""; 0]);
        assert_eq!(changed("type='ethernet'", "type='vhostuser'").taps, [""; 0]);
        assert_eq!(changed(" uuid=\"fedcba9876543210fedcba9876543210\"", "").project, Some("demo".into()));
        assert_eq!(changed("http://openstack.org", "http://example.org").project, None);
    }

    #[test]
    fn modules_count_as_far_as_they_are_memory() {
        // As libvirt 9.0.0 writes them for a domain of 128 MiB.
        let module = |model: &str, current: &str| {
            let target = format!("<size unit='KiB'>131072</size><node>0</node>{current}");
            format!("<memory model='{model}'><target>{target}</target></memory>")
        };
        let memory = |modules: &[String]| {
            let all = 131_072 * (modules.len() + 1);
            let record = REAL.replace("<memory unit='KiB'>98304<", &format!("<memory unit='KiB'>{all}<"));
            let record =
                record.replace("    <devices>\n      <em", &format!("<devices>{}<em", modules.concat()));
            parse(record.as_bytes()).unwrap().memory_bytes.map(|bytes| bytes >> 20)
        };
        let current = |size: u32| format!("<current unit='KiB'>{size}</current>");
        assert_eq!(memory(&[]), Some(128));
        assert_eq!(memory(&[module("dimm", "")]), Some(256));
        assert_eq!(memory(&[module("virtio-mem", &current(0))]), Some(128));
        assert_eq!(memory(&[module("virtio-mem", &current(65_536)), module("dimm", "")]), Some(320));
        assert_eq!(memory(&[module("virtio-mem", "")]), None, "nobody says what is plugged in");
        for model in ["nvdimm", "sgx-epc", "virtio-pmem"] {
            assert_eq!(memory(&[module(model, ""), module("dimm", "")]), Some(256), "{model}");
        }
    }

    #[test]
    fn other_files_are_refused_with_short_messages() {
        let dtd = "<!DOCTYPE a [<!ENTITY b \"c\">]><domstatus pid='1'><domain/></domstatus>";
        for (content, problem) in [
            ("", "bad XML at line 1, column 1"),
            ("root:$6$secret:1::", "bad XML at line 1, column 1"),
            ("<domstatus><", ""),
            ("<secret/>", "it does not begin with <domstatus>"),
            ("<domstatus pid='1'/>", "no <domain>"),
            ("<domstatus><domain><uuid>a</uuid><name>b</name></domain></domstatus>", "no pid"),
            ("<domstatus pid='-1'><domain><uuid>a</uuid><name>b</name></domain></domstatus>", "no pid"),
            ("<domstatus pid='1'><domain><name>b</name></domain></domstatus>", "no <uuid>"),
            (dtd, "bad XML"),
        ] {
            let error = parse(content.as_bytes()).unwrap_err();
            let repeats = error.contains("secret") || error.len() > 120;
            assert!(error.contains(problem) && !repeats, "{content}: {error}");
        }
        let deep = "<a>".repeat(300_000);
        parse(deep.as_bytes()).unwrap_err();
        let many = format!("<domstatus pid='1'>{}</domstatus>", "<a/>".repeat(200_000));
        assert!(parse(many.as_bytes()).unwrap_err().contains("bad XML"));
    }

    proptest! {
        #[test]
        fn any_change_of_a_record_never_panics(at in 0..REAL.len(), byte: u8) {
            let mut content = REAL.as_bytes().to_vec();
            content[at] = byte;
            let _ = parse(&content);
            let _ = parse(&content[..at]);
        }
    }
}
