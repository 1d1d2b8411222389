//! Who a VM of QEMU is, by its options.

use std::collections::HashSet;

use super::identity::Identity;
use super::qemu_options::pairs;
use crate::sources::values::uuid;

pub fn identity(options: &[(&str, &str)]) -> Identity {
    let mut identity = Identity::default();
    let mut chardevs = Vec::new();
    let mut monitors = HashSet::new();
    for (option, value) in options {
        match *option {
            // Both set the same variable of QEMU's: the later counts.
            "uuid" => identity.uuid = uuid::given(value).or(identity.uuid),
            "smbios" => identity.uuid = smbios_uuid(value).or(identity.uuid),
            "id" if !value.is_empty() => identity.given = Some((*value).to_owned()),
            "name" => identity.name = guest(value).or(identity.name),
            "pidfile" if !value.is_empty() => identity.paths.push((*value).to_owned()),
            "qmp" | "qmp-pretty" | "monitor" => identity.paths.extend(unix_socket(value)),
            "chardev" => chardevs.extend(chardev(value)),
            "mon" => monitors.extend(key(value, "chardev", "chardev")),
            _ => {}
        }
    }
    chardevs.retain(|(id, _)| monitors.contains(id));
    identity.paths.extend(chardevs.into_iter().map(|(_, path)| path));
    identity
}

fn guest(value: &str) -> Option<String> {
    key(value, "guest", "guest")
}

/// Of the system, which is type 1.
fn smbios_uuid(value: &str) -> Option<String> {
    (key(value, "type", "type")? == "1")
        .then(|| key(value, "type", "uuid"))?
        .and_then(|uuid| uuid::given(&uuid))
}

/// The last value of a key that is not empty.
fn key(value: &str, first_key: &str, wanted: &str) -> Option<String> {
    let pairs = pairs(value, first_key).into_iter();
    pairs.filter(|(key, _)| *key == wanted).map(|(_, value)| value).rfind(|value| !value.is_empty())
}

/// Its id and its path, of a socket in the file system.
fn chardev(value: &str) -> Option<(String, String)> {
    (key(value, "backend", "backend")? == "socket").then_some(())?;
    Some((key(value, "backend", "id")?, key(value, "backend", "path")?))
}

fn unix_socket(value: &str) -> Option<String> {
    let path = key(value.strip_prefix("unix:")?, "path", "path")?;
    Some(path)
}
