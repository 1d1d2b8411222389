//! API servers of VMMs with configurable responses.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

type Answers = Arc<Vec<(String, String)>>;

/// Serves a body for `GET <path>`, and 404 for all else.
pub(super) fn serve_http(socket: &Path, answers: Vec<(String, String)>) -> Result<()> {
    serve(socket, answers, |stream, answers| {
        let mut writer = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let Some(path) = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else {
                continue;
            };
            let (status, body) = match answers.iter().find(|(known, _)| known == path) {
                Some((_, body)) => ("200 OK", body.as_str()),
                None => ("404 Not Found", ""),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nServer: API\r\nContent-Length: {length}\r\n\r\n");
            writer.write_all(format!("{head}{body}").as_bytes())?;
        }
        Ok(())
    })
}

/// Serves a value for each command, and an empty object for all else.
pub(super) fn serve_qmp(socket: &Path, answers: Vec<(String, String)>) -> Result<()> {
    const GREETING: &str =
        r#"{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":9},"package":""},"capabilities":[]}}"#;
    serve(socket, answers, |stream, answers| {
        let mut writer = stream.try_clone()?;
        writer.write_all(format!("{GREETING}\r\n").as_bytes())?;
        for line in BufReader::new(stream).lines() {
            let request: serde_json::Value = serde_json::from_str(&line?)?;
            let command = request["execute"].as_str().unwrap_or_default();
            let known = answers.iter().find(|(known, _)| known == command);
            let value = known.map_or("{}", |(_, value)| value.as_str());
            let id = request.get("id").map(|id| format!(",\"id\":{id}")).unwrap_or_default();
            writer.write_all(format!("{{\"return\":{value}{id}}}\r\n").as_bytes())?;
        }
        Ok(())
    })
}

fn serve(
    socket: &Path,
    answers: Vec<(String, String)>,
    talk: impl Fn(UnixStream, &Answers) -> Result<()> + Copy + Send + 'static,
) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
    // Any user may connect.
    fs::set_permissions(socket, Permissions::from_mode(0o777)).context("chmod a socket")?;
    let answers = Arc::new(answers);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // A client may disconnect early.
            thread::spawn(move || drop(talk(stream, &answers)));
        }
    });
    Ok(())
}
