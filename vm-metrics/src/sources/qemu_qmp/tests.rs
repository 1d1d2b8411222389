//! Tests of a QEMU monitor against fake sockets.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream as Stream};
use std::thread;

use super::*;
use crate::model::{UnmonitoredKind, UnmonitoredNic};

const GREETING: &str =
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n";

/// What QEMU 7.2 says, with an event between; the suite `vm` asks a real one.
const ANSWERS: &str = "{\"return\": {}}\r\n{\"return\": {\"name\": \"web\"}}\r\n\
    {\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}\r\n\
    {\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n\
    {\"return\": [{\"thread-id\": 7, \"cpu-index\": 0}, {\"thread-id\": 8, \"cpu-index\": 1}]}\r\n\
    {\"return\": {\"base-memory\": 134217728, \"plugged-memory\": 67108864}}\r\n\
    {\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n\
    {\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"No balloon device has been activated\"}}\r\n\
    {\"return\": [{\"type\": \"dimm\", \"data\": {\"memdev\": \"/objects/a\", \"size\": 67108864}}]}\r\n\
    {\"return\": \"e1000.0: index=0,type=nic\\r\\n \\\\ n0: index=0,type=user\\r\\n\"}\r\n";

fn talk_with(says: &str) -> Result<VmmInfo, String> {
    let (ours, theirs) = Stream::pair().unwrap();
    (&theirs).write_all(says.as_bytes()).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    ours.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let vmm = runtime.block_on(async { talk(UnixStream::from_std(ours).unwrap()).await });
    vmm.map_err(|error| error.to_string())
}

#[test]
fn a_dialogue() {
    let info = talk_with(&format!("{GREETING}{ANSWERS}")).unwrap().info;
    let expected = InstanceInfo {
        name: "web".into(),
        hypervisor: Hypervisor::Qemu,
        unmonitored: vec![UnmonitoredNic { kind: UnmonitoredKind::User, name: "n0".into() }],
        allocated_vcpus: Some(2),
        allocated_memory_bytes: Some(192 << 20),
        state: Some(VmState::Running),
        ..InstanceInfo::default()
    };
    assert_eq!(info, expected);
    let uuid = "6f1b3a7e-0000-4000-8000-000000000001";
    let answers = ANSWERS.replace("00000000-0000-0000-0000-000000000000", uuid);
    assert_eq!(talk_with(&format!("{GREETING}{answers}")).unwrap().info.id, uuid);
    for (said, expected) in [
        ("prelaunch", VmState::NotStarted),
        ("paused", VmState::Paused),
        ("io-error", VmState::Paused),
        ("guest-panicked", VmState::Stopped),
    ] {
        let status = format!("\"{said}\", \"singlestep\": false, \"running\": false");
        let answers = ANSWERS.replace("\"running\", \"singlestep\": false, \"running\": true", &status);
        let vmm = talk_with(&format!("{GREETING}{answers}")).unwrap();
        assert_eq!(vmm.info.state, Some(expected), "{said}");
    }
}

#[test]
fn storage_is_no_memory() {
    let memory =
        |answers: String| talk_with(&format!("{GREETING}{answers}")).unwrap().info.allocated_memory_bytes;
    for kind in ["nvdimm", "virtio-pmem"] {
        assert_eq!(memory(ANSWERS.replace("\"dimm\"", &format!("\"{kind}\""))), Some(128 << 20), "{kind}");
    }
    assert_eq!(memory(ANSWERS.replace("\"dimm\"", "\"virtio-mem\"")), Some(192 << 20));
    let refused = ANSWERS.replace("{\"return\": [{\"type\"", "{\"error\": [{\"type\"");
    assert_eq!(memory(refused), None, "nobody says what is plugged in");
}

#[test]
fn names_are_labels_so_long_ones_are_cut() {
    let long = "x".repeat(10_000);
    let answers = ANSWERS
        .replace("00000000-0000-0000-0000-000000000000", &long)
        .replace("\"web\"", &format!("\"{long}\""));
    let info = talk_with(&format!("{GREETING}{answers}")).unwrap().info;
    assert_eq!((info.id.len(), info.name.len()), (256, 256));
}

/// As an orchestrator does that hands QEMU the socket.
#[test]
fn only_qemu_becomes_the_process_of_the_vm() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("web.sock")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(format!("{GREETING}{ANSWERS}").as_bytes()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let patterns = vec![dir.path().join("*.sock").to_str().unwrap().to_owned()];
    let mut source = Qmp { api: VmmApi::new(&SourceContext::default(), query), patterns, had_sockets: false };
    let vms = source.list().unwrap().instances;
    let [web] = &vms[..] else { panic!("{vms:?}") };
    assert_eq!((web.id.as_str(), web.hypervisor_pid), ("web", None));
}

#[test]
fn other_sockets_get_a_short_message() {
    for (says, problem) in [
        ("{\"hello\": 1}\n", "no monitor of QEMU: it does not begin with a greeting"),
        ("SSH-2.0-OpenSSH\r\n", "no monitor of QEMU: bad JSON at line 1, column 1"),
        (GREETING, "the connection ended within the answer"),
        ("", "the connection ended within the answer"),
    ] {
        assert_eq!(talk_with(says).unwrap_err(), problem);
    }
    let refused = ANSWERS.replacen("\"return\": {}", "\"error\": {\"class\": \"CommandNotFound\"}", 1);
    assert_eq!(talk_with(&format!("{GREETING}{refused}")).unwrap_err(), "qmp_capabilities: refused");
}
