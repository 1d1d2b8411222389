//! Forms of addresses, and refusals of wrong ones.

use super::*;
use crate::config::Config;

fn parse(text: &str) -> Result<ListenAddress, String> {
    text.parse()
}

fn listen(text: &str) -> Result<Listen, String> {
    let config = Config::parse(Path::new("test.toml"), text);
    config.map(|config| config.settings.listen).map_err(|error| error.to_string())
}

#[test]
fn each_form_is_taken_and_printed_alike() {
    for (text, address) in [
        ("127.0.0.1:10464", ListenAddress::Ip(([127, 0, 0, 1], 10464).into())),
        ("[::1]:10464", ListenAddress::Ip("[::1]:10464".parse().unwrap())),
        ("[::]:0", ListenAddress::Ip("[::]:0".parse().unwrap())),
        (":10464", ListenAddress::All(10464)),
        ("localhost:1", ListenAddress::Name("localhost".to_owned(), 1)),
        ("host-1.example:1", ListenAddress::Name("host-1.example".to_owned(), 1)),
        ("unix:/run/x.sock", ListenAddress::Unix("/run/x.sock".into())),
    ] {
        assert_eq!(parse(text), Ok(address), "{text}");
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn a_refusal_has_an_example() {
    let long = format!("unix:/{}", "x".repeat(MAX_PATH));
    for (text, problem) in [
        ("", "the port is missing"),
        ("10464", "a port needs an address"),
        ("127.0.0.1", "the port is missing"),
        ("localhost", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("127.0.0.1:99999", "the port must be"),
        ("127.0.0.1:", "the port must be"),
        ("300.1.1.1:1", "no address and no name"),
        ("127.1:1", "no address and no name"),
        ("*:1", "no address and no name"),
        ("::1:10464", "written in brackets"),
        ("::1", "written in brackets"),
        ("http://127.0.0.1:10464", "has no scheme"),
        ("/run/x.sock", "a socket begins with unix:"),
        ("unix:x.sock", "must be the absolute path"),
        ("unix:/", "must be the absolute path"),
        (&long, "at most 102 bytes"),
    ] {
        let refused = parse(text).unwrap_err();
        assert!(refused.contains(problem), "{text:?}: {refused}");
        assert!(text == long || refused.contains(":10464"), "{text:?} has no example: {refused}");
    }
}

#[test]
fn a_string_and_an_array_are_valid() {
    for (text, addresses) in [
        ("", DEFAULT),
        ("listen = \":1\"", ":1"),
        ("listen = [\":1\", \"unix:/x\"]", ":1, unix:/x"),
        ("listen = \":1, localhost:2\"", ":1, localhost:2"),
    ] {
        assert_eq!(listen(text).unwrap().to_string(), addresses);
    }
    assert_eq!(listen("\nlisten = \":1\"").unwrap().place(), "test.toml:2, key listen");
    assert_eq!(listen("listen = [\"unix:/x\", \":7\"]").unwrap().port(), 7);
}

#[test]
fn a_refusal_names_line_key_and_value() {
    for (text, problem) in [
        ("listen = \"10464\"", "test.toml:1: listen: \"10464\": a port needs"),
        ("\nlisten = [\":1\", \"x\"]", "test.toml:2: listen: \"x\": the port is missing"),
        ("listen = []", "test.toml:1: listen: no address is given, such as 127.0.0.1:10464"),
        ("listen = 10464", "test.toml:1: listen: \"10464\": a port needs"),
        ("listen = true", "test.toml:1: expected an address, or an array of them, such as"),
    ] {
        let refused = listen(text).unwrap_err();
        assert!(refused.starts_with(problem), "{text}: {refused}");
    }
}

#[test]
fn all_wrong_addresses_are_reported() {
    let refused = listen("interval = 1\nlisten = [\"x\", \":1\", \"10464\"]").unwrap_err();
    for problem in ["test.toml:1: ", "test.toml:2: listen: \"x\"", "test.toml:2: listen: \"10464\""] {
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
    assert_eq!(refused.lines().count(), 3, "{refused}");
}
