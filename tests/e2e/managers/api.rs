//! The API socket of a VMM, with one document for each path.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Serves until the end of the test.
pub(super) fn serve(socket: &Path, answers: BTreeMap<String, String>) {
    let directory = socket.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    // The path of a socket has 108 bytes at most.
    let directory = File::open(directory).unwrap();
    let name = socket.file_name().unwrap().to_str().unwrap();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The daemon may close the connection at any time.
            let _ = answer(&stream, &answers);
        }
    });
}

fn answer(stream: &UnixStream, answers: &BTreeMap<String, String>) -> io::Result<()> {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some(path) = line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")) else {
            continue;
        };
        let (status, body) = answers.get(path).map_or(("404", ""), |body| ("200", body));
        write!(writer, "HTTP/1.1 {status} \r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}
