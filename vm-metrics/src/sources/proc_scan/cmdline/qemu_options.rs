//! How QEMU cuts its command line into options, and an option's value into keys.

use serde_json::{Map, Value};

/// Options of any version that take a value, sorted: the next word is theirs, also where it begins with `-`.
const TAKE_VALUES: &[&str] = &[
    "D",
    "L",
    "M",
    "accel",
    "acpitable",
    "action",
    "add-fd",
    "append",
    "audio",
    "audiodev",
    "balloon",
    "bios",
    "blockdev",
    "boot",
    "bootp",
    "bt",
    "cdrom",
    "chardev",
    "chroot",
    "clock",
    "compat",
    "cpu",
    "d",
    "debugcon",
    "device",
    "dfilter",
    "display",
    "drive",
    "dtb",
    "dump-vmstate",
    "echr",
    "fda",
    "fdb",
    "fsdev",
    "fw_cfg",
    "g",
    "gdb",
    "global",
    "hda",
    "hdachs",
    "hdb",
    "hdc",
    "hdd",
    "icount",
    "id",
    "incoming",
    "initrd",
    "iscsi",
    "k",
    "kernel",
    "kvm-shadow-memory",
    "loadvm",
    "m",
    "machine",
    "mem-path",
    "mon",
    "monitor",
    "msg",
    "mtdblock",
    "name",
    "net",
    "netdev",
    "nic",
    "numa",
    "object",
    "option-rom",
    "overcommit",
    "parallel",
    "pcidevice",
    "pflash",
    "pidfile",
    "plugin",
    "prom-env",
    "qmp",
    "qmp-pretty",
    "qtest",
    "qtest-log",
    "readconfig",
    "realtime",
    "redir",
    "rotate",
    "rtc",
    "run-with",
    "runas",
    "sandbox",
    "sd",
    "seed",
    "semihosting-config",
    "serial",
    "set",
    "shim",
    "smb",
    "smbios",
    "smp",
    "soundhw",
    "spice",
    "startdate",
    "tb-size",
    "tftp",
    "tpmdev",
    "trace",
    "usbdevice",
    "uuid",
    "vga",
    "virtfs",
    "virtioconsole",
    "vnc",
    "watchdog",
    "watchdog-action",
    "writeconfig",
    "xen-domid",
];

/// Keys and values of an option, in order.
pub type Keys = Vec<(String, String)>;

/// `-option value`, `--option value` and `-flag`, without their dashes; a flag's value is empty.
///
/// Of an option that is not in the table, a word that begins with `-` is no value. A disk image after a flag
/// thus becomes the flag's value, which QEMU ignores.
pub fn options(argv: &[String]) -> Vec<(&str, &str)> {
    let mut options = Vec::new();
    let mut words = argv.iter().skip(1).map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        let takes_any = TAKE_VALUES.binary_search(&option).is_ok();
        let value = words.next_if(|next| takes_any || !next.starts_with('-'));
        options.push((option, value.unwrap_or_default()));
    }
    options
}

/// `key=value,flag,…` as QEMU reads it: the first key may be left out, and a doubled comma in a value is a
/// comma.
pub fn pairs<'a>(text: &'a str, first_key: &'a str) -> Vec<(&'a str, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = rest.split_at(rest.find(['=', ',']).unwrap_or(rest.len()));
        let value;
        if let Some(after) = after.strip_prefix('=') {
            (value, rest) = take_value(after);
            pairs.push((key, value));
        } else if pairs.is_empty() {
            (value, rest) = take_value(rest);
            pairs.push((first_key, value));
        } else {
            rest = after.strip_prefix(',').unwrap_or(after);
            pairs.push((key, "on".to_owned()));
        }
    }
    pairs
}

/// The keys of each of these options, in either spelling: `first,key=value` or JSON.
pub fn values<'a>(
    options: &'a [(&str, &str)],
    names: &'a [&str],
    first_key: &'a str,
) -> impl Iterator<Item = Keys> + 'a {
    options.iter().filter(|(option, _)| names.contains(option)).map(move |(_, value)| {
        if value.starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(value).unwrap_or_default();
            return object.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect();
        }
        pairs(value, first_key).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    })
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Of a key that is given twice, the last counts.
pub fn get<'a>(keys: &'a Keys, key: &str) -> Option<&'a str> {
    keys.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// A value up to its lone comma, and the rest after the comma.
fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some((piece, after)) = rest.split_once(',') else {
            value.push_str(rest);
            return (value, "");
        };
        value.push_str(piece);
        let Some(after) = after.strip_prefix(',') else {
            return (value, after);
        };
        value.push(',');
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::argv;
    use super::*;

    #[test]
    fn words() {
        let line = argv("kvm disk.img -S --name -odd- -nodefaults -append -m -m 2G -cpu");
        let expected =
            [("S", ""), ("name", "-odd-"), ("nodefaults", ""), ("append", "-m"), ("m", "2G"), ("cpu", "")];
        assert_eq!(options(&line), expected);
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TAKE_VALUES.is_sorted());
    }

    #[test]
    fn keys_and_values() {
        let read = |text| {
            pairs(text, "first").into_iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>()
        };
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read("4,"), ["first:4"]);
        assert_eq!(read("guest=a,,b,debug-threads=on"), ["guest:a,b", "debug-threads:on"]);
        assert_eq!(read("a,,b=c,flag,x==y"), ["first:a,b=c", "flag:on", "x:=y"]);
        assert_eq!(read("size=,,,a"), ["size:,", "a:on"]);
    }

    proptest! {
        #[test]
        fn round_trip(values in prop::collection::vec(("[a-z][a-z.-]{0,8}", "\\PC{0,16}"), 1..6)) {
            let text: Vec<_> = values.iter().map(|(key, value)| format!("{key}={}", value.replace(',', ",,"))).collect();
            let text = text.join(",");
            let read: Vec<_> = pairs(&text, "first").into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            prop_assert_eq!(read, values);
        }
    }
}
