//! Tests of the ids and names of command lines.

use super::super::{argv, parse};
use super::*;
use crate::model::Hypervisor;

const UUID: &str = "6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55";
const POD: &str = "0a1b2c3d-1111-4222-8333-444455556666";

fn place(cwd: &str, pod: &str) -> Surroundings {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Surroundings { cwd: some(cwd), pod: some(pod), ..Surroundings::default() }
}

/// Each row has the command line, the working directory, the pod, the id and the name.
fn check(hypervisor: Hypervisor, rows: &[(&str, &str, &str, &str, &str)]) {
    for (line, cwd, pod, id, name) in rows {
        let line = line.replace("UUID", &UUID.to_ascii_uppercase());
        let place = place(cwd, pod);
        let identity = parse(hypervisor, "vmm", &argv(&format!("vmm {line}"))).expect(&line).identity;
        let found = (identity.id(&place).0.unwrap_or_default(), identity.name(&place).unwrap_or_default());
        assert_eq!(found, ((*id).to_owned(), (*name).to_owned()), "{line} in {cwd:?}");
    }
}

#[test]
fn qemu_is_its_uuid_or_number_or_name() {
    check(
        Hypervisor::Qemu,
        &[
            ("-id 121 -name ubuntu", "", "", "121", "ubuntu"),
            ("-id 122 -name ubuntu", "", "", "122", "ubuntu"),
            ("-id 121 -name ubuntu,debug-threads=on -smbios type=1,uuid=UUID", "", "", UUID, "ubuntu"),
            ("-smbios type=1,manufacturer=a,,b,uuid=UUID -name web", "", "", UUID, "web"),
            ("-smbios type=3,uuid=UUID -smbios file=/x -name web", "", "", "web", "web"),
            ("-name guest=t1_test -uuid UUID", "", "", UUID, "t1_test"),
            ("-uuid 00000000-0000-0000-0000-000000000000 -name web", "", "", "web", "web"),
            ("-id 121", "", "", "121", "121"),
            ("-m 512", "/srv/web", POD, "", ""),
            ("-name web", "", "", "web", "web"),
            ("--name web", "", "", "web", "web"),
            ("-name guest=web,process=qemu:web", "", "", "web", "web"),
            ("-name web,process=qemu:web", "", "", "web", "web"),
            ("-name process=p", "", "", "", ""),
            ("-name a,,b", "", "", "a,b", "a,b"),
            ("-name a -name process=b", "", "", "a", "a"),
            ("-name a -name guest=b", "", "", "b", "b"),
            ("-name a -uuid u-1", "", "", "u-1", "a"),
            ("--uuid u-1 -uuid u-2", "", "", "u-2", ""),
            ("-name", "", "", "", ""),
            ("-uuid", "", "", "", ""),
            ("", "", "", "", ""),
        ],
    );
}

/// As QEMU does, whose `query-uuid` tells the last.
#[test]
fn the_later_of_two_uuids_counts() {
    let other = "00000000-0000-4000-8000-000000000001";
    check(
        Hypervisor::Qemu,
        &[
            (&format!("-uuid {other} -smbios type=1,uuid=UUID"), "", "", UUID, ""),
            (&format!("-smbios type=1,uuid={other} -uuid UUID"), "", "", UUID, ""),
        ],
    );
}

#[test]
fn cloud_hypervisor_is_its_uuid_or_socket() {
    let flintlock = format!("--api-socket /var/lib/flintlock/vm/ns/web/{UUID}/cloudhypervisor.sock");
    check(
        Hypervisor::CloudHypervisor,
        &[
            ("--platform uuid=UUID --api-socket /run/web.sock", "", "", UUID, "web"),
            ("--platform num_pci_segments=2,system_uuid=UUID", "", "", UUID, ""),
            ("--api-socket ch.sock", "/srv/a", "", "a", "a"),
            ("--api-socket ch.sock", "/srv/b", "", "b", "b"),
            ("--api-socket ./run/ch.sock", "/srv/b", "", "b", "b"),
            ("--api-socket ch.sock", "", "", "ch", "ch"),
            ("--api-socket ch.sock", "/", "", "ch", "ch"),
            ("--api-socket /run/user/1000/ch.sock", "/srv/a", "", "ch", "ch"),
            (&flintlock, "/", "", UUID, UUID),
            ("--api-socket /run/vc/vm/4f2c/clh-api.sock", "/", "", "4f2c", "4f2c"),
            ("--api-socket /var/run/virtink/ch.sock", "/", POD, POD, POD),
            ("--api-socket /var/run/virtink/ch.sock", "/", "", "ch", "ch"),
            ("--api-socket /run/libvirt/ch/web-socket", "/", "", "web", "web"),
            ("--api-socket /run/libvirt/ch/.hidden-socket", "/", "", ".hidden", ".hidden"),
            ("--api-socket web.sock", "/srv/a", POD, "web", "web"),
            ("--api-socket fd=25", "/srv/a", "", "", ""),
            ("--api-socket /run/vm/web.sock", "", "", "web", "web"),
            ("--api-socket=web.sock", "", "", "web", "web"),
            ("--api-socket path=/run/vm/web.sock", "", "", "web", "web"),
            ("--api-socket /tmp/ch.sock", "", "", "ch", "ch"),
            ("--platform uuid=u-1,oem_strings=[a,uuid=b] --api-socket /tmp/web.sock", "", "", "u-1", "web"),
            ("--platform num_pci_segments=2,uuid=u-1", "", "", "u-1", ""),
            ("", "", "", "", ""),
            (
                "--api-socket fd=25 --event-monitor path=/run/libvirt/ch/web-event-monitor-fifo",
                "/",
                "",
                "web",
                "web",
            ),
        ],
    );
}

#[test]
fn firecracker_is_its_id_or_socket() {
    check(
        Hypervisor::Firecracker,
        &[
            ("--id web-1 --api-sock /run/api.socket", "", "", "web-1", "web-1"),
            ("--id anonymous-instance --api-sock /tmp/fc-isandbox1.sock", "", "", "isandbox1", "isandbox1"),
            ("--api-sock /var/lib/firecracker/vm/0123/firecracker.sock", "/", "", "0123", "0123"),
            ("--api-sock web.sock --config-file vm.json", "/var/lib/microvms/web", "", "web", "web"),
            ("--api-sock api.socket", "/var/lib/microvms/web", "", "web", "web"),
            ("--api-sock /tmp/firecracker.socket", "/srv", "", "", ""),
            // Kata's, with and without the place of a jail.
            ("--api-sock /run/vc/firecracker/4f1b/root/run/firecracker.socket", "", "", "4f1b", "4f1b"),
            ("--api-sock /run/kata/4f1b/run/fc.sock", "/", "", "4f1b", "4f1b"),
            ("--api-sock /srv/root/run/firecracker.socket", "/", "", "", ""),
            ("--api-sock /var/run/firecracker.socket", "/", "", "", ""),
            ("--api-sock /srv/.firecracker.sock-12-81", "/srv", "", "", ""),
            ("--no-api --api-sock /tmp/web.sock", "", "", "", ""),
            ("--api-sock /tmp/firecracker.socket", "", "", "", ""),
            ("--id anonymous-instance", "", "", "", ""),
            ("--id= --no-api", "", "", "", ""),
            ("--api-sock=/run/web.sock --id=web-1", "", "", "web-1", "web-1"),
            // As started by the jailer.
            ("--id 551e7604 --start-time-us 8123 --parent-cpu-time-us 7", "", "", "551e7604", "551e7604"),
            ("--id 551e7604 -- --id other", "", "", "551e7604", "551e7604"),
            ("", "/srv/web", "", "", ""),
        ],
    );
}

#[test]
fn paths_of_monitors_and_pid_files_count() {
    let line = "-qmp unix:/run/a.qmp,server=on,wait=off -monitor unix:path=b.sock,server -monitor stdio
        -chardev socket,id=charmonitor,path=/run/c.sock,server=on -mon chardev=charmonitor,mode=control
        -chardev socket,id=console,path=/run/d.sock -mon chardev=other -pidfile /run/a.pid -vnc unix:/run/e";
    let vm = parse(Hypervisor::Qemu, "kvm", &argv(&format!("kvm {line}"))).unwrap();
    assert_eq!(vm.identity.paths, ["/run/a.qmp", "b.sock", "/run/a.pid", "/run/c.sock"]);
}
