//! One row of the table: a VM's process, files and expected cells.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The rows of one file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rows {
    pub(super) vm: Vec<Row>,
}

/// A manager's VM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) manager: String,
    /// Distinguishes the rows of one manager.
    pub(super) case: Option<String>,
    /// The executable of the process.
    pub(super) program: String,
    /// The command line in shell syntax.
    pub(super) args: String,
    #[serde(default = "root")]
    pub(super) directory: String,
    #[serde(default = "root")]
    pub(super) cgroup: String,
    /// Whether the process has a network namespace of its own.
    #[serde(default)]
    pub(super) own_netns: bool,
    /// Names of the threads except the first.
    #[serde(default)]
    pub(super) threads: Vec<String>,
    /// vCPUs of the process's KVM VM.
    pub(super) kvm_vcpus: Option<u32>,
    /// TAPs that the process holds, once for each queue.
    #[serde(default)]
    pub(super) taps: Vec<String>,
    /// TAPs of a second process, a child of the first.
    #[serde(default)]
    pub(super) child_taps: Vec<String>,
    /// Files in the root of the process.
    #[serde(default)]
    pub(super) files: BTreeMap<String, String>,
    /// Files of the host; `{pid}` in them is the process.
    #[serde(default)]
    pub(super) records: BTreeMap<String, String>,
    pub(super) api: Option<Api>,
    pub(super) expected: Cells,
}

/// The API socket of the VMM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    /// Path in the root of the process.
    pub(super) socket: String,
    /// The document at each path.
    pub(super) answers: BTreeMap<String, String>,
}

/// The expected cells. `{pid}` stands for the process; an absent cell is unknown.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cells {
    pub(super) hypervisor: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) vcpus: Option<u64>,
    pub(super) mebibytes: Option<u64>,
    #[serde(default)]
    pub(super) nics: Vec<String>,
    /// Unmonitored NICs, each with its kind.
    #[serde(default)]
    pub(super) unmonitored: Vec<String>,
    pub(super) project: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) pod_uid: Option<String>,
}

impl Row {
    pub(super) fn title(&self) -> String {
        let case = self.case.iter().map(|case| format!(", {case}"));
        format!("{}, {}{}", self.expected.hypervisor, self.manager, case.collect::<String>())
    }

    /// Whether a file or an API describes the VM, for which no tick waits.
    pub(super) fn is_read_later(&self) -> bool {
        self.api.is_some() || !self.files.is_empty()
    }
}

fn root() -> String {
    "/".to_owned()
}
