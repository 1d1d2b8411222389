//! A minimal HTTP client, independent of the daemon's code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::wait::scaled;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body is not UTF-8")
    }
}

/// Returns the response to `GET path` with any status.
pub fn get(address: SocketAddr, path: &str, accept: Option<&str>) -> Result<Response> {
    request(address, "GET", path, accept)
}

/// Returns the response to a request without a body, with any status.
pub fn request(address: SocketAddr, method: &str, path: &str, accept: Option<&str>) -> Result<Response> {
    let accept = accept.map(|accept| ("Accept", accept));
    request_with(address, method, path, accept.as_slice())
}

/// Sends such a request with any headers.
pub fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    let context = || format!("{method} http://{address}{path}");
    exchange(address, method, path, headers).with_context(context)
}

/// Encodes a query string: all but letters, digits and safe characters becomes `%xx`.
pub fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, scaled(DEADLINE)).context("connect")?;
    stream.set_read_timeout(Some(scaled(DEADLINE))).context("set the read timeout")?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // HTTP/1.0 sends the body in one piece and then closes the connection.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).context("send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<Response> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no end of headers")?;
    let head = std::str::from_utf8(&answer[..end]).context("the headers are not UTF-8")?;
    let body = answer[end + 4..].to_vec();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in {first:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let response = Response { status, headers, body };
    if let Some(length) = response.header("content-length") {
        ensure!(
            length == response.body.len().to_string(),
            "{length} bytes announced, {} came",
            response.body.len()
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_headers_and_body() {
        let answer =
            parse(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno")
                .unwrap();
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.text().unwrap(), "no");
    }

    #[test]
    fn a_cut_body_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno").is_err());
    }
}
