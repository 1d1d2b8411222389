//! One row of the table: the process of a manager's VM with its files, and the cells that are expected.

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
    /// Where a manager has several rows.
    pub(super) case: Option<String>,
    /// The file that the process runs.
    pub(super) program: String,
    /// The command line, in words as a shell cuts it.
    pub(super) args: String,
    #[serde(default = "root")]
    pub(super) directory: String,
    #[serde(default = "root")]
    pub(super) cgroup: String,
    /// Whether it is in a network namespace of its own.
    #[serde(default)]
    pub(super) own_netns: bool,
    /// The threads beside the first.
    #[serde(default)]
    pub(super) threads: Vec<String>,
    /// The vCPUs of the KVM VM that it holds.
    pub(super) kvm_vcpus: Option<u32>,
    /// The TAPs that it holds, one for each queue.
    #[serde(default)]
    pub(super) taps: Vec<String>,
    /// The TAPs that a second process of the program holds, which has come from the first.
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
    /// In the root of the process.
    pub(super) socket: String,
    /// The document at each path.
    pub(super) answers: BTreeMap<String, String>,
}

/// The cells of a row. `{pid}` is the process; what is not there is not known.
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
    /// Each with its kind.
    #[serde(default)]
    pub(super) uncounted: Vec<String>,
    pub(super) project: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) pod_uid: Option<String>,
}

impl Row {
    pub(super) fn title(&self) -> String {
        let case = self.case.iter().map(|case| format!(", {case}"));
        format!("{}, {}{}", self.expected.hypervisor, self.manager, case.collect::<String>())
    }

    /// Whether it is described by a file or an API, which a tick does not wait for.
    pub(super) fn is_read_later(&self) -> bool {
        self.api.is_some() || !self.files.is_empty()
    }
}

fn root() -> String {
    "/".to_owned()
}
