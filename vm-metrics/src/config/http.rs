//! The section `[http]`: allowed host names, detail of errors, and the Unix socket.

use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use crate::host::Host;

const DEFAULT_SOCKET: &str = "/run/vm-metrics/api.sock";

/// Of DNS.
const MAX_NAME: usize = 253;

/// The keys of the section, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Further names of this server, in lower case.
    pub hosts: Vec<String>,
    /// Whether errors of sources and readers are shown over TCP.
    pub show_errors: bool,
    pub socket: ApiSocket,
}

/// Whether the server has a Unix socket, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiSocket {
    Off,
    /// If its directory exists.
    Auto(PathBuf),
    /// Required.
    On(PathBuf),
}

/// As typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    hosts: Vec<Spanned<String>>,
    show_errors: bool,
    socket: Option<Spanned<PathBuf>>,
}

impl RawHttp {
    /// `refuse` makes an error from a place and a problem. A fixture host has no socket by default.
    pub(super) fn resolve(
        self,
        host: &Host,
        refuse: impl Fn(Range<usize>, String) -> ConfigError,
    ) -> Result<HttpSettings, ConfigError> {
        let Self { hosts, show_errors, socket } = self;
        let name = |host: Spanned<String>| {
            let name = host.get_ref().trim_end_matches('.').to_ascii_lowercase();
            let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            // All names below a domain with a dot: a whole top-level domain has no single owner.
            let bare = name.strip_prefix("*.").filter(|domain| domain.contains('.')).unwrap_or(&name);
            if bare.is_empty() || name.len() > MAX_NAME || !bare.chars().all(of_name) {
                let problem = "hosts: must be names such as \"metrics.example\" or \"*.dc1.example\", without scheme \
                               and port";
                return Err(refuse(host.span(), problem.to_owned()));
            }
            Ok(name)
        };
        let hosts = hosts.into_iter().map(name).collect::<Result<_, _>>()?;
        let socket = match socket {
            None if host.is_this_kernel() => ApiSocket::Auto(DEFAULT_SOCKET.into()),
            None => ApiSocket::Off,
            Some(path) if path.get_ref().as_os_str().is_empty() => ApiSocket::Off,
            Some(path) if path.get_ref().is_absolute() => ApiSocket::On(path.into_inner()),
            Some(path) => {
                return Err(refuse(
                    path.span(),
                    "socket: must be an absolute path, or \"\" for none".to_owned(),
                ));
            }
        };
        Ok(HttpSettings { hosts, show_errors, socket })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn http(text: &str) -> Result<HttpSettings, String> {
        let config = Config::parse(Path::new("test.toml"), text);
        config.map(|config| config.settings.http).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_in_lower_case() {
        let hosts = http("[http]\nhosts = [\"Metrics.Example.\", \"a_b\", \"*.DC1.example\"]").unwrap().hosts;
        assert_eq!(hosts, ["metrics.example", "a_b", "*.dc1.example"]);
    }

    #[test]
    fn the_socket_is_there_unless_switched_off() {
        let socket = |text: &str| http(text).unwrap().socket;
        assert_eq!(socket(""), ApiSocket::Auto(DEFAULT_SOCKET.into()));
        assert_eq!(socket("[http]\nsocket = \"\""), ApiSocket::Off);
        assert_eq!(socket("[http]\nsocket = \"/x\""), ApiSocket::On("/x".into()));
        assert_eq!(socket("[host]\nproc = \"/x\""), ApiSocket::Off);
    }

    #[test]
    fn wrong_names_and_sockets_are_refused() {
        for (line, problem) in [
            ("hosts = [\"http://a\"]", "test.toml:2: http.hosts: must be names"),
            ("hosts = [\"a:10464\"]", "test.toml:2: http.hosts: must be names"),
            ("hosts = [\"*\"]", "test.toml:2: http.hosts: must be names"),
            ("hosts = [\"*.example\"]", "test.toml:2: http.hosts: must be names"),
            ("hosts = [\"a.*.dc1.example\"]", "test.toml:2: http.hosts: must be names"),
            ("hosts = [\".\"]", "test.toml:2: http.hosts: must be names"),
            ("socket = \"api.sock\"", "test.toml:2: http.socket: must be an absolute path"),
            ("host = []", "test.toml:2: unknown key `host`; did you mean `hosts`?"),
        ] {
            let error = http(&format!("[http]\n{line}")).unwrap_err();
            assert!(error.starts_with(problem), "{line}: {error}");
        }
    }
}
