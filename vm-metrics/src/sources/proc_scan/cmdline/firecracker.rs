//! Firecracker: its command line, and the config file that the command line may name.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::identity::Identity;
use super::long_options::LongOptions;
use super::{ConfigError, ConfigFile, ConfigFormat, VmArgs};
use crate::sources::values::bounded;
use crate::sources::values::uuid;

/// The default of `--id`, which many VMs share.
const ANONYMOUS: &str = "anonymous-instance";

/// Also in the root that the jailer has given it.
const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

const DEFAULT_VCPUS: u32 = 1;
const DEFAULT_MEMORY_MIB: u64 = 128;

/// Options that print something and leave.
const PRINTS: &[&str] = &["version", "help", "snapshot-version", "describe-snapshot"];

pub fn parse(argv: &[String]) -> Option<VmArgs> {
    let options = LongOptions::new(argv);
    if PRINTS.iter().any(|option| options.has(option)) {
        return None;
    }
    Some(VmArgs {
        identity: identity(&options),
        config_file: options
            .value("config-file")
            .map(|path| ConfigFile { path: path.to_owned(), format: ConfigFormat::Firecracker }),
        api_socket: (!options.has("no-api"))
            .then(|| options.value("api-sock").unwrap_or(DEFAULT_SOCKET).to_owned()),
        ..VmArgs::default()
    })
}

fn identity(options: &LongOptions<'_>) -> Identity {
    let id = options.value("id").filter(|id| !matches!(*id, ANONYMOUS | ""));
    let api_socket = options.value("api-sock").filter(|_| !options.has("no-api")).map(str::to_owned);
    Identity {
        name: id.map(uuid::canonical),
        paths: api_socket.clone().into_iter().collect(),
        api_socket,
        ..Identity::default()
    }
}

impl From<serde_json::Error> for ConfigError {
    fn from(error: serde_json::Error) -> Self {
        let problem = if error.is_data() { "unexpected value" } else { "bad JSON" };
        Self { format: "Firecracker", problem, line: error.line(), column: error.column() }
    }
}

/// Adds sizes and NICs of the config file.
pub fn read_config(content: &[u8]) -> Result<VmArgs, ConfigError> {
    let config: FirecrackerConfig = serde_json::from_slice(content)?;
    let machine = config.machine_config.unwrap_or_default();
    Ok(VmArgs {
        vcpus: Some(machine.vcpu_count.unwrap_or(DEFAULT_VCPUS)),
        memory_bytes: machine.mem_size_mib.unwrap_or(DEFAULT_MEMORY_MIB).checked_mul(1 << 20),
        taps: config.network_interfaces.into_iter().map(|interface| interface.host_dev_name).collect(),
        ..VmArgs::default()
    })
}

/// The configuration of a VM, in a file or as the API gives it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FirecrackerConfig {
    /// `null` is as good as nothing to Firecracker.
    pub machine_config: Option<MachineConfig>,
    #[serde(default, deserialize_with = "bounded::first_nics")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// That there is any.
    pub memory_hotplug: Option<IgnoredAny>,
}

/// A file may leave sizes out, and Firecracker has defaults for them. An answer of the API has none.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct MachineConfig {
    #[serde(deserialize_with = "some_vcpus")]
    pub vcpu_count: Option<u32>,
    #[serde(deserialize_with = "some_memory_mib")]
    pub mem_size_mib: Option<u64>,
}

fn some_vcpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    bounded::vcpus(deserializer).map(Some)
}

fn some_memory_mib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bounded::memory_mib(deserializer).map(Some)
}

#[derive(Deserialize)]
pub struct NetworkInterface {
    pub host_dev_name: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::argv;
    use super::*;

    #[test]
    fn sockets() {
        for (line, socket) in [
            ("firecracker --id a", Some("/run/firecracker.socket")),
            ("firecracker --api-sock /run/web.sock", Some("/run/web.sock")),
            ("/firecracker --id a --start-time-us 1 --api-sock api.socket", Some("api.socket")),
            ("firecracker --no-api --config-file vm.json", None),
        ] {
            let vm = parse(&argv(line)).unwrap();
            assert_eq!((vm.api_socket.as_deref(), vm.vcpus, vm.memory_bytes), (socket, None, None), "{line}");
        }
    }

    #[test]
    fn config_file() {
        let line = parse(&argv("firecracker --no-api --config-file vm.json --id a")).unwrap();
        let file = line.config_file.unwrap();
        assert_eq!(file.path, "vm.json");
        let config = br#"{"boot-source": {"kernel_image_path": "vmlinux.bin", "boot_args": "console=ttyS0"},
            "drives": [], "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024, "smt": false},
            "network-interfaces": [{"iface_id": "eth0", "guest_mac": "AA:FC:00:00:00:01", "host_dev_name": "fc0"},
                                   {"iface_id": "eth1", "host_dev_name": "fc1"}]}"#;
        let vm = file.read(config).unwrap();
        assert_eq!((vm.vcpus, vm.memory_bytes), (Some(2), Some(1 << 30)));
        assert_eq!(vm.taps, ["fc0", "fc1"]);
    }

    #[test]
    fn without_a_machine_config_firecracker_has_defaults() {
        for config in ["{}", "{\"machine-config\": null}", "{\"machine-config\": {}}"] {
            let vm = read_config(config.as_bytes()).unwrap();
            assert_eq!((vm.vcpus, vm.memory_bytes), (Some(1), Some(128 << 20)), "{config}");
        }
    }

    #[test]
    fn a_bad_config_is_refused_and_not_quoted() {
        for (content, message) in [
            (
                &b"{\"machine-config\": {\"vcpu_count\": \"secret\"}}"[..],
                "unexpected value at line 1, column",
            ),
            (b"secret", "bad JSON at line 1, column"),
            (b"", "bad JSON at line 1, column 0"),
        ] {
            let error = read_config(content).unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_config_never_panics(content in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = read_config(&content);
        }
    }
}
