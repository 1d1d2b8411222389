//! Files that the daemon keeps open of the network namespace of a VM.

use std::fs;

use super::host::{Host, OFTEN};
use crate::isolation::isolated;

/// Where the open files of a process lead to.
pub(super) fn open_files(pid: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One may close meanwhile.
    let targets = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

/// One socket asks about devices, the other listens to their events: `tap_netlink` and `tap_ebpf` use the same.
#[test]
fn readers_share_two_sockets_of_a_namespace() {
    isolated("elsewhere::handles::readers_share_two_sockets_of_a_namespace", || {
        let host = Host::new();
        let guest = host.guest("a");
        let daemon = host.daemon(OFTEN);
        guest.wait_until_counted_by(&daemon, "ebpf");
        let files = open_files(daemon.pid());
        let sockets = fs::read_to_string(format!("/proc/{}/net/netlink", guest.vmm.pid())).unwrap();
        let inodes = sockets.lines().skip(1).filter_map(|line| line.split_whitespace().last());
        let held = inodes.filter(|inode| files.contains(&format!("socket:[{inode}]"))).count();
        assert_eq!(held, 2, "netlink sockets in {files:?} of\n{sockets}");
        assert!(files.contains(&format!("net:[{}]", guest.netns)), "{files:?}");
    });
}
