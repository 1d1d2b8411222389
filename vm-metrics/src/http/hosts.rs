//! Refuses requests for foreign host names, as DNS rebinding sends them.
//!
//! In DNS rebinding a page of `evil.example` points this name at an address that the browser can reach, and reads the
//! answers. The browser still sends `evil.example` as the host. An address cannot be rebound.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Allowed names in lower case, without a dot at the end.
#[derive(Clone, Debug)]
pub(super) struct Hosts(Arc<[String]>);

impl Hosts {
    /// `localhost`, the name of this host, and those of the configuration.
    pub(super) fn new(configured: &[String]) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        Self(["localhost".to_owned(), own].into_iter().chain(configured.iter().cloned()).collect())
    }

    fn allow(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let refused = |host: &str| format!("this server is not called {host:?}");
        if let Some(host) = uri.host().filter(|host| !self.is_known(host)) {
            return Err(refused(host));
        }
        for value in headers.get_all(header::HOST) {
            let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
            let Some(authority) = authority.filter(is_host_and_port) else {
                return Err("the header Host is no name".to_owned());
            };
            if !self.is_known(authority.host()) {
                return Err(refused(authority.host()));
            }
        }
        // A request without the header is not from a browser.
        Ok(())
    }

    fn is_known(&self, host: &str) -> bool {
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(address) = in_brackets {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        name.parse::<IpAddr>().is_ok() || self.0.iter().any(|known| is_called(known, name))
    }
}

/// Whether a name is the known one, or below the domain of `*.dc1.example`.
fn is_called(known: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match known.strip_prefix('*') {
        Some(domain) => name.strip_suffix(domain).is_some_and(|host| !host.is_empty()),
        None => known == name,
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let after = authority.as_str().strip_prefix(authority.host());
    after.is_some_and(|after| after.is_empty() || after.starts_with(':'))
}

/// Answers 421 to a request for another host.
pub(super) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match hosts.allow(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            let detail = format!(
                "{problem}: use an address, the name that `hostname` prints, or add the name to the key hosts of [http], such as \
                 VM_METRICS_HTTP__HOSTS='[\"*.dc1.example\"]'"
            );
            Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(uri: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        Hosts::new(&["metrics.example".to_owned(), "*.dc1.example".to_owned()])
            .allow(&uri.parse().unwrap(), &headers)
            .is_ok()
    }

    #[test]
    fn addresses_and_own_names_are_allowed() {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for host in [
            "127.0.0.1",
            "127.0.0.1:10464",
            "[::1]:10464",
            "[2001:db8::1]",
            "localhost:10464",
            "LocalHost",
            "metrics.example:80",
            "Metrics.Example.",
            "kvm17.dc1.example:10464",
            "a.kvm17.DC1.example.",
            &own,
        ] {
            assert!(is_allowed("/metrics", &[host]), "{host}");
        }
        assert!(is_allowed("/metrics", &[]), "HTTP/1.0 needs no host");
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "evil.example:10464",
            "metrics.example.evil.example",
            "dc1.example",
            ".dc1.example",
            "evil-dc1.example",
            "kvm17.dc1.example.evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil.example]",
            "[::1].evil.example",
            "",
            "a b",
            "user@evil.example",
        ] {
            assert!(!is_allowed("/metrics", &[host]), "{host}");
        }
        assert!(!is_allowed("/metrics", &["localhost", "evil.example"]), "each of several");
        assert!(!is_allowed("http://evil.example/metrics", &["localhost"]), "the address line counts, too");
    }
}
