//! Faulty stand-ins for VMM APIs and monitors.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Serves one connection of a stand-in.
pub(super) type Behaviour = fn(&mut UnixStream) -> io::Result<()>;

/// Texts of which the health must contain one.
pub(super) type HealthTexts = &'static [&'static str];

pub(super) const OK: &str = "HTTP/1.1 200 \r\n";

const LATE: HealthTexts = &["no answer within 200 ms"];
/// A busy machine decides which of the two comes first.
const LARGE: HealthTexts = &["larger than 1048576 bytes", LATE[0]];
const ENDED: HealthTexts = &["ended within the answer"];
const NO_MONITOR: HealthTexts = &["no monitor of QEMU"];

pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) api: Behaviour,
    pub(super) monitor: Behaviour,
    /// For the API and for the monitor.
    pub(super) message: [HealthTexts; 2],
}

pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "hangs", api: hang, monitor: hang, message: [LATE, LATE] },
    Fault { name: "answers garbage", api: garbage, monitor: garbage, message: [&["no HTTP"], NO_MONITOR] },
    Fault { name: "answers no JSON", api: no_json, monitor: no_json, message: [&["bad JSON"], NO_MONITOR] },
    Fault {
        name: "answers other JSON",
        api: list,
        monitor: list,
        message: [&["unexpected value"], NO_MONITOR],
    },
    Fault { name: "leaves within the answer", api: leave, monitor: leave_greeting, message: [ENDED, ENDED] },
    Fault { name: "sends 100 MB", api: flood_body, monitor: flood_greeting, message: [LARGE, LARGE] },
    Fault { name: "sends 100 MB of headers", api: flood_headers, monitor: flood, message: [LARGE, LARGE] },
    Fault { name: "sends a byte now and then", api: trickle_body, monitor: trickle, message: [LATE, LATE] },
];

fn hang(stream: &mut UnixStream) -> io::Result<()> {
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn garbage(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(b"\0\xff}{\r\n\r\n")
}

fn no_json(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}Content-Length: 4\r\n\r\n{{\"a\n")
}

fn list(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}Content-Length: 4\r\n\r\n[1]\n")
}

fn leave(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}Content-Length: 100\r\n\r\n{{")
}

fn leave_greeting(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{{\"QMP\":")
}

fn flood_body(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}Content-Length: 104857600\r\n\r\n")?;
    flood(stream)
}

fn flood_headers(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}X: ")?;
    flood(stream)
}

fn flood_greeting(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{{\"QMP\":\"")?;
    flood(stream)
}

fn flood(stream: &mut UnixStream) -> io::Result<()> {
    (0..1600).try_for_each(|_| stream.write_all(&[b'1'; 1 << 16]))
}

fn trickle_body(stream: &mut UnixStream) -> io::Result<()> {
    write!(stream, "{OK}Content-Length: 1000\r\n\r\n")?;
    trickle(stream)
}

fn trickle(stream: &mut UnixStream) -> io::Result<()> {
    loop {
        stream.write_all(b" ")?;
        thread::sleep(Duration::from_millis(20));
    }
}
