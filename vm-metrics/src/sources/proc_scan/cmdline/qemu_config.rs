//! The file of `-readconfig`, with which Incus and LXD describe their VMs.

use super::qemu_machine::{Machine, architecture};
use super::{ConfigError, ConfigFile, ConfigFormat, VmArgs};

pub const READ_CONFIG: &str = "readconfig";

/// Groups of a file and options of a command line that are read.
const READ: &[&str] =
    &["M", "chardev", "device", "m", "machine", "net", "netdev", "nic", "object", READ_CONFIG, "set", "smp"];

/// How much of a command line is kept until its file is read. Incus has a few hundred bytes.
const MAX_LINE: usize = 16 << 10;

/// A command line that names a config file. The keys of the file count in the place of the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuLine {
    program: String,
    options: Vec<(String, String)>,
}

/// `None` where it is not to be read: there are several files, or the command line is too long.
pub fn config_file(program: &str, options: &[(&str, &str)]) -> Option<ConfigFile> {
    let mut files = options.iter().filter(|(option, _)| *option == READ_CONFIG).map(|(_, file)| *file);
    let path = files.next().filter(|_| files.next().is_none())?.to_owned();
    let kept = options.iter().filter(|(option, _)| READ.contains(option));
    let kept: Vec<_> = kept.map(|(option, value)| ((*option).to_owned(), (*value).to_owned())).collect();
    let length: usize = kept.iter().map(|(option, value)| option.len() + value.len()).sum();
    let line = QemuLine { program: program.to_owned(), options: kept };
    (length <= MAX_LINE).then_some(ConfigFile { path, format: ConfigFormat::Qemu(line) })
}

impl QemuLine {
    /// The VM of this command line with this file.
    pub fn with_file(&self, content: &[u8]) -> Result<VmArgs, ConfigError> {
        let content = String::from_utf8_lossy(content);
        let file = options(&content)?;
        let file = || file.iter().map(|(option, value)| (option.as_str(), value.as_str()));
        let mut all = Vec::new();
        for (option, value) in &self.options {
            if option == READ_CONFIG {
                all.extend(file());
            } else {
                all.push((option.as_str(), value.as_str()));
            }
        }
        Ok(Machine::new(&all, architecture(&self.program)).vm(&all))
    }
}

/// The groups of a file as options of a command line.
fn options(content: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut options: Vec<(String, String)> = Vec::new();
    for (at, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((group, id)) = group(line) {
            let id = id.map_or_else(String::new, |id| key_value("id", id));
            options.push((option(group).to_owned(), id));
        } else if let Some(((key, value), (_, keys))) = option_line(line).zip(options.last_mut()) {
            keys.push_str(if keys.is_empty() { "" } else { "," });
            keys.push_str(&key_value(key, value));
        } else {
            let problem = "neither a group nor an option of one";
            return Err(ConfigError { format: "QEMU", problem, line: at + 1, column: 1 });
        }
    }
    options.retain(|(option, _)| READ.contains(&option.as_str()));
    Ok(options)
}

/// `[group]` or `[group "id"]`.
fn group(line: &str) -> Option<(&str, Option<&str>)> {
    let group = line.strip_prefix('[')?.split(']').next()?;
    match group.split_once('"') {
        Some((group, id)) => Some((group.trim_end(), id.split('"').next())),
        None => Some((group, None)),
    }
}

/// `key = "value"`.
fn option_line(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim().strip_prefix('"')?.split('"').next()?))
}

/// The option that a group stands for.
fn option(group: &str) -> &str {
    match group {
        "memory" => "m",
        "smp-opts" => "smp",
        other => other,
    }
}

fn key_value(key: &str, value: &str) -> String {
    format!("{key}={}", value.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::argv;
    use super::super::qemu::parse;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// As Incus 6 writes it, cut.
    const INCUS: &str = r#"
# Machine
[machine]
graphics = "off"
type = "q35"
accel = "kvm"
usb = "off"

[global]
driver = "ICH9-LPC"
property = "disable_s3"
value = "1"

# Memory
[memory]
size = "1024M"
maxmem = "8192M"
slots = "8"

# CPU
[smp-opts]
cpus = "1"
maxcpus = "8"

[object "mem0"]
qom-type = "memory-backend-memfd"
size = "1024M"
share = "on"

[numa]
type = "node"
nodeid = "0"
memdev = "mem0"

[device "qemu_pcie0"]
driver = "pcie-root-port"
bus = "pcie.0"
"#;

    fn read(line: &str, content: &str) -> Result<VmArgs, String> {
        let vm = parse("qemu-system-x86_64", &argv(&format!("qemu-system-x86_64 {line}"))).unwrap();
        let file = vm.config_file.ok_or("no file")?;
        assert_eq!(file.path, "/vm.cfg");
        file.read(content.as_bytes()).map_err(|error| error.to_string())
    }

    /// vCPUs and MiB.
    fn sizes(line: &str, content: &str) -> (Option<u32>, Option<u64>) {
        let vm = read(line, content).unwrap();
        (vm.vcpus, vm.memory_bytes.map(|bytes| bytes / MIB))
    }

    #[test]
    fn incus_has_its_sizes_in_the_file() {
        let line = "-S -name web -uuid u -daemonize -cpu host -nographic -nodefaults -no-user-config -readconfig /vm.cfg";
        assert_eq!(sizes(line, INCUS), (Some(1), Some(1024)));
        assert_eq!(read(line, INCUS).unwrap().max_vcpus, Some(8));
    }

    #[test]
    fn the_last_of_line_and_file_counts() {
        let file = "[memory]\n size = \"96\"\n[smp-opts]\n  cpus = \"2\"\n  maxcpus = \"4\"\n";
        assert_eq!(sizes("-readconfig /vm.cfg", file), (Some(2), Some(96)));
        assert_eq!(sizes("-m 64 -smp 3 -readconfig /vm.cfg", file), (Some(2), Some(96)));
        assert_eq!(sizes("-readconfig /vm.cfg -m 64 -smp 3", file), (Some(3), Some(64)));
        assert_eq!(sizes("-m 64 -readconfig /vm.cfg", ""), (Some(1), Some(64)));
        assert_eq!(sizes("-readconfig /vm.cfg", "[machine]\ntype = \"virt\"\n"), (None, None));
    }

    #[test]
    fn objects_and_devices_count() {
        let file = "[object \"m0\"]\nqom-type = \"memory-backend-memfd\"\nsize = \"192M\"\n\
            [machine]\nmemory-backend = \"m0\"\n\
            [device \"c1\"]\ndriver = \"qemu64-x86_64-cpu\"\n\
            [netdev \"n0\"]\ntype = \"tap\"\nifname = \"t0\"\n";
        assert_eq!(sizes("-readconfig /vm.cfg", file), (Some(2), Some(192)));
        assert_eq!(read("-readconfig /vm.cfg", file).unwrap().taps, ["t0"]);
    }

    #[test]
    fn what_is_no_config_is_not_quoted() {
        for content in ["root:$6$secret", "size = \"secret\"", "[memory]\nsecret"] {
            let error = read("-readconfig /vm.cfg", content).unwrap_err();
            assert!(error.contains("not a QEMU config") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn long_lines_and_several_files_are_not_read() {
        let long = format!("-readconfig /vm.cfg -device {}", "x".repeat(MAX_LINE));
        for line in [&long, "-readconfig /vm.cfg -readconfig /b.cfg"] {
            assert_eq!(read(line, "").unwrap_err(), "no file");
        }
    }

    proptest! {
        #[test]
        fn any_file_never_panics(content in "(\\[|\\]|\"|=|,|#|\n|[a-z ]){0,64}") {
            let _ = read("-readconfig /vm.cfg", &content);
        }
    }
}
