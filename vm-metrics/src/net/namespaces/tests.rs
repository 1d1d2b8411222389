use super::*;
use crate::model::InstanceInfo;

fn elsewhere(max_of_others: u64) -> ForeignNamespaces<()> {
    ForeignNamespaces { max_of_others, ..ForeignNamespaces::new(&Host::default(), &Trust::default()) }
}

/// VMs of these users, each in a namespace of its own.
fn vms(users: &[(u32, u64)]) -> VmSet {
    let mut pid = 0;
    let mut vm = |uid: u32| {
        pid += 1;
        let nic = Nic { tap: "tap0".into(), netns: Some(1000 * u64::from(uid) + u64::from(pid)) };
        InstanceInfo { hypervisor_pid: Some(pid), uid: Some(uid), nics: vec![nic], ..InstanceInfo::default() }
    };
    let vms = users.iter().flat_map(|(uid, count)| (0..*count).map(|_| *uid)).map(&mut vm).collect();
    VmSet { vms }
}

fn ranked(elsewhere: &ForeignNamespaces<()>, vms: &VmSet) -> (Vec<u64>, Excess) {
    let mut overuse = Excess::default();
    let wanted = wanted(vms, &HashSet::new(), &elsewhere.trust);
    let users = elsewhere.within_shares(&wanted, &mut overuse).iter().map(|netns| netns / 1000).collect();
    (users, overuse)
}

#[test]
fn a_stranger_cannot_take_all_namespaces() {
    let (users, overuse) = ranked(&elsewhere(10), &vms(&[(7, 100), (0, 20), (9, 3)]));
    assert_eq!(users[..20], [0; 20], "root is not cut, and comes first");
    assert_eq!(users[20..], [7, 9, 7, 9, 7, 9, 7, 7, 7, 7]);
    let mut expected = Excess::default();
    expected.add(Some(7), RESOURCE, 93);
    assert_eq!(overuse, expected);
}

#[test]
fn a_trusted_users_vm_makes_its_namespace_trusted() {
    let mut vms = vms(&[(7, 1), (0, 1)]);
    let netns = vms.vms[0].nics[0].netns;
    vms.vms[1].nics[0].netns = netns;
    let tenant = |ended: &[u32]| {
        let ended = ended.iter().copied().collect();
        wanted(&vms, &ended, &Trust::default()).remove(&netns.unwrap()).map(|wanted| wanted.tenant)
    };
    assert_eq!(tenant(&[]), Some(Tenant::Trusted));
    assert_eq!(tenant(&[2]), Some(Tenant::Other(Some(7))));
    assert_eq!(tenant(&[1, 2]), None, "nobody is there any more");
}

#[test]
fn a_namespace_waits_a_moment_for_a_tap_made_anew() {
    let mut elsewhere = elsewhere(10);
    let own = elsewhere.host.own_netns().unwrap();
    let vm = |nics| InstanceInfo {
        hypervisor_pid: Some(std::process::id()),
        uid: Some(7),
        nics,
        ..InstanceInfo::default()
    };
    let nic = Nic { tap: "tap0".into(), netns: Some(own) };
    let mut open = |vms: &[InstanceInfo], ended: &[u32]| {
        let (vms, ended) = (VmSet { vms: vms.to_vec() }, ended.iter().copied().collect());
        elsewhere.follow(&vms, &ended, |_| Ok(()));
        elsewhere.release(|()| true);
        elsewhere.open().count()
    };
    assert_eq!(open(&[vm(vec![nic.clone()])], &[]), 1);
    assert_eq!(open(&[vm(Vec::new())], &[]), 1);
    assert_eq!(open(&[vm(Vec::new())], &[std::process::id()]), 0, "its process has ended");
    assert_eq!(open(&[vm(vec![nic])], &[]), 1);
    assert_eq!(open(&[], &[]), 0, "no source lists it");
}
