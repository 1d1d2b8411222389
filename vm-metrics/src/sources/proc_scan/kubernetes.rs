//! Finds pod and namespace of a VM that Kubernetes runs.

use crate::procfs::kubernetes_pod;
use crate::sources::process::ProcessDir;

/// A path with this in it is on the command line of each QEMU of KubeVirt.
const KUBEVIRT: &str = "/kubevirt-private/";

/// The longest name that Kubernetes accepts.
const MAX_NAMESPACE: usize = 63;

/// The UID of the pod in which the process runs.
pub fn pod_uid(process: &ProcessDir) -> Option<String> {
    kubernetes_pod(&process.cgroup())
}

/// The namespace in a name of KubeVirt, `<namespace>_<VM>`. Only the process claims it.
pub fn namespace(argv: &[String], name: &str) -> Option<String> {
    let (namespace, _) = name.split_once('_').filter(|_| argv.iter().any(|word| word.contains(KUBEVIRT)))?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_namespace = (1..=MAX_NAMESPACE).contains(&namespace.len()) && namespace.bytes().all(is_allowed);
    is_namespace.then(|| namespace.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubevirt_names_begin_with_the_namespace() {
        let kubevirt =
            ["qemu-kvm", "file=/var/run/kubevirt-private/libvirt/master-key.aes"].map(str::to_owned);
        assert_eq!(namespace(&kubevirt, "team-a_web_1").as_deref(), Some("team-a"));
        for name in ["web", "_web", "Team_web", "a.b_web", &format!("{}_web", "a".repeat(64))] {
            assert_eq!(namespace(&kubevirt, name), None, "{name}");
        }
        assert_eq!(namespace(&["qemu-kvm".to_owned()], "team-a_web"), None, "not of KubeVirt");
    }
}
