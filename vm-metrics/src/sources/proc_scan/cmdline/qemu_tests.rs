//! Tests of QEMU's command line.

use proptest::prelude::*;

use super::super::{Identity, argv};
use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DEFAULT_MEMORY: u64 = 128 * MIB;

fn parse(argv: &[String]) -> Option<VmArgs> {
    super::parse("qemu-system-x86_64", argv)
}

const LIBVIRT: &str = r#"/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S
    -object {"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/domain-1-web/master-key.aes"}
    -machine pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm -cpu host,migratable=on
    -m size=2097152k,slots=16,maxmem=8388608k
    -object {"qom-type":"memory-backend-ram","id":"pc.ram","size":2147483648} -overcommit mem-lock=off
    -smp 2,maxcpus=4,sockets=4,cores=1,threads=1 -uuid 6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55 -no-user-config -nodefaults
    -chardev socket,id=charmonitor,fd=32,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control
    -rtc base=utc,driftfix=slew -global kvm-pit.lost_tick_policy=delay -no-hpet -no-shutdown -boot strict=on
    -netdev {"type":"tap","fd":"34","vhost":true,"vhostfd":"36","id":"hostnet0"}
    -device {"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"52:54:00:a1:b2:c3","bus":"pci.1"}
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -msg timestamp=on"#;

const PROXMOX: &str = "/usr/bin/kvm -id 100 -name vm,debug-threads=on -no-shutdown
    -chardev socket,id=qmp,path=/var/run/qemu-server/100.qmp,server=on,wait=off -mon chardev=qmp,mode=control
    -pidfile /var/run/qemu-server/100.pid -daemonize -smbios type=1,uuid=a7c3d2f0-0d3b-4f2e-8a8e-5b1e6b9c0d11
    -smp 4,sockets=1,cores=4,maxcpus=4 -nodefaults -vnc unix:/var/run/qemu-server/100.vnc,password=on
    -cpu kvm64,enforce,+kvm_pv_eoi,+lahf_lm,+sep -m 4096
    -netdev type=tap,id=net0,ifname=tap100i0,script=/usr/libexec/qemu-server/pve-bridge,vhost=on
    -netdev type=tap,id=net1,ifname=tap100i1,script=no -machine type=pc+pve0";

#[test]
fn real_command_lines() {
    let web = parse(&argv(LIBVIRT)).unwrap();
    let expected = VmArgs {
        identity: Identity {
            uuid: Some("6f9c7d5e-3f7d-4d0a-9d39-0f0d3a6b1c55".into()),
            name: Some("web".into()),
            ..Identity::default()
        },
        vcpus: Some(2),
        max_vcpus: Some(4),
        memory_bytes: Some(2 * GIB),
        ..VmArgs::default()
    };
    assert_eq!(web, expected);

    let vm = parse(&argv(PROXMOX)).unwrap();
    let expected = VmArgs {
        identity: Identity {
            uuid: Some("a7c3d2f0-0d3b-4f2e-8a8e-5b1e6b9c0d11".into()),
            given: Some("100".into()),
            name: Some("vm".into()),
            paths: ["pid", "qmp"].map(|file| format!("/var/run/qemu-server/100.{file}")).to_vec(),
            ..Identity::default()
        },
        vcpus: Some(4),
        memory_bytes: Some(4 * GIB),
        taps: vec!["tap100i0".into(), "tap100i1".into()],
        daemonizes: true,
        ..VmArgs::default()
    };
    assert_eq!(vm, expected);

    let plain = parse(&argv("qemu-system-x86_64 -hda disk.img")).unwrap();
    let expected = VmArgs { vcpus: Some(1), memory_bytes: Some(DEFAULT_MEMORY), ..VmArgs::default() };
    assert_eq!(plain, expected);
}

#[test]
fn vcpus_as_qemu_counts_them() {
    for (line, expected) in [
        ("", Some(1)),
        ("-smp 4", Some(4)),
        ("--smp 4", Some(4)),
        ("-smp 0x10", Some(16)),
        ("-smp cpus=4,maxcpus=8", Some(4)),
        ("-smp 2,maxcpus=4,sockets=4,cores=1,threads=1", Some(2)),
        ("-smp sockets=2,cores=2,threads=1", Some(4)),
        ("-smp sockets=2,dies=2,cores=3,threads=2", Some(24)),
        ("-smp cores=3", Some(3)),
        ("-smp maxcpus=4", Some(4)),
        ("-smp cpus=2,cpus=3", Some(3)),
        ("-smp 2 -smp maxcpus=4", Some(2)),
        ("-M q35,smp.cpus=3", Some(3)),
        ("-smp 2,", Some(2)),
        ("-smp 0", Some(1)),
        ("-smp cpus=0,cores=2,maxcpus=0", Some(2)),
        ("-smp many", None),
        ("-smp cores=99999,threads=99999", None),
        ("-readconfig vm.cfg", None),
        ("-readconfig vm.cfg -smp 2", Some(2)),
        ("-smp 2 -readconfig vm.cfg", None),
        (
            "-smp 1,sockets=2,cores=2,maxcpus=4 -device kvm64-x86_64-cpu,id=cpu2,socket-id=0,core-id=1,thread-id=0",
            Some(2),
        ),
        (
            r#"-smp 1,maxcpus=3 -device {"driver":"host-x86_64-cpu","id":"c"} -device driver=host-x86_64-cpu"#,
            Some(3),
        ),
        ("-smp 4,threads=4,maxcpus=8 -device host-spapr-cpu-core,core-id=4", Some(8)),
        ("-smp 1,maxcpus=2 -device virtio-net-pci,id=a-cpu -device", Some(1)),
    ] {
        assert_eq!(parse(&argv(&format!("kvm {line}"))).unwrap().vcpus, expected, "{line}");
    }
}

#[test]
fn memory_in_all_spellings() {
    for (line, expected) in [
        ("", Some(DEFAULT_MEMORY)),
        ("-m 0", Some(DEFAULT_MEMORY)),
        ("-m 512", Some(GIB / 2)),
        ("--m 512", Some(GIB / 2)),
        ("-m 4G", Some(4 * GIB)),
        ("-m 4g", Some(4 * GIB)),
        ("-m 1.5G", Some(3 * GIB / 2)),
        ("-m 0x40", Some(64 * MIB)),
        ("-m size=1G,slots=4,maxmem=8G", Some(GIB)),
        ("-m size=1048576k", Some(GIB)),
        ("-m size=512", Some(GIB / 2)),
        ("-m 1g -m slots=1,maxmem=2g", Some(GIB)),
        ("-m 1G -m 2G", Some(2 * GIB)),
        ("-M q35,memory.size=512M", Some(GIB / 2)),
        ("-M q35,memory.size=512", Some(8 << 10)),
        ("-m 64 -M memory.size=32M", Some(64 * MIB)),
        ("-m 100000b", Some(13 * (8 << 10))),
        ("-m slots=2", Some(DEFAULT_MEMORY)),
        ("-m lots", None),
        ("-machine q35,memory-backend=m -object memory-backend-memfd,id=m,size=192M", Some(192 * MIB)),
        (
            r#"-M q35,memory-backend=m -object {"qom-type":"memory-backend-ram","id":"m","size":201326592}"#,
            Some(192 * MIB),
        ),
        ("-machine q35,memory-backend=m -object memory-backend-memfd,id=other,size=192M", None),
        ("-m 1G,slots=8,maxmem=4G -object memory-backend-ram,id=a,size=128M", Some(GIB)),
        (
            "-m 1G,slots=8,maxmem=4G -object memory-backend-ram,id=a,size=128M -device pc-dimm,memdev=a",
            Some(GIB + 128 * MIB),
        ),
        (
            r#"-device {"driver":"pc-dimm","memdev":"a"} -m 1G,slots=8,maxmem=4G -object {"qom-type":"memory-backend-ram","id":"a","size":134217728}"#,
            Some(GIB + 128 * MIB),
        ),
        ("-m 1G,slots=8,maxmem=4G -device pc-dimm,memdev=a", None),
        (
            "-m 1G -object memory-backend-ram,id=a,size=9M -device pc-dimm,memdev=a,id=d -set device.d.memdev=b",
            None,
        ),
        ("-m 1G -object memory-backend-file,id=a,size=9M -device nvdimm,memdev=a", Some(GIB)),
        ("-m 1G -object memory-backend-file,id=a,size=9M -device virtio-pmem-pci,memdev=a", Some(GIB)),
        ("-m 1G -object memory-backend-ram,id=a,size=9M -device virtio-mem-pci,memdev=a", Some(GIB)),
        ("-readconfig vm.cfg", None),
        ("-m 1G -readconfig vm.cfg", None),
        ("-readconfig vm.cfg -m 1G", Some(GIB)),
        ("-set device.x.addr=4", Some(DEFAULT_MEMORY)),
    ] {
        assert_eq!(parse(&argv(&format!("kvm {line}"))).unwrap().memory_bytes, expected, "{line}");
    }
}

#[test]
fn a_device_model_of_xen_has_no_sizes() {
    let line = "-xen-domid 7 -no-shutdown -chardev socket,id=libxl-cmd,fd=19 -name web -machine xenfv -m 2040 -smp 2";
    let vm = parse(&argv(&format!("qemu-system-i386 {line} -readconfig vm.cfg"))).unwrap();
    assert_eq!((vm.vcpus, vm.max_vcpus, vm.memory_bytes, vm.config_file), (None, None, None, None));
    assert_eq!((vm.identity.name.as_deref(), vm.is_xen), (Some("web"), true));
}

#[test]
fn the_android_emulator_has_options_of_its_own() {
    for (line, vcpus, memory) in [
        ("-avd Pixel_3a -no-window -cores 4 -memory 3072", Some(4), Some(3 * GIB)),
        ("@Pixel_3a -memory 2048", None, Some(2 * GIB)),
        ("-netdelay none -avd Pixel_3a -qemu -enable-kvm", None, None),
    ] {
        let vm = parse(&argv(&format!("qemu-system-x86_64-headless {line}"))).unwrap();
        assert_eq!((vm.vcpus, vm.memory_bytes), (vcpus, memory), "{line}");
    }
}

#[test]
fn names_and_kernel_arguments_hide_no_vm() {
    for line in
        ["-name help", "-append --version", "-append help", "-kernel help", "-name --version", "-name none"]
    {
        assert!(parse(&argv(&format!("kvm {line} -smp 2"))).is_some_and(|vm| vm.vcpus == Some(2)), "{line}");
    }
}

#[test]
fn a_value_may_look_like_an_option() {
    for value in ["-version", "-h", "-smp", "-m", "-daemonize", "-machine", "--version"] {
        for option in ["-D", "-pidfile", "--cpu", "-rtc", "-smb", "-run-with"] {
            let line = format!("kvm -smp 4 -m 512 {option} {value} 1 -no-shutdown");
            let vm = parse(&argv(&line)).unwrap_or_else(|| panic!("no VM: {line}"));
            let found = (vm.vcpus, vm.memory_bytes, vm.daemonizes);
            assert_eq!(found, (Some(4), Some(GIB / 2), false), "{line}");
        }
    }
}

#[test]
fn taps() {
    for (line, expected) in [
        (
            "-netdev tap,id=n0,ifname=t0,script=no -nic tap,ifname=t1 -net tap,ifname=t2",
            &["t0", "t1", "t2"][..],
        ),
        (r#"-netdev {"type":"tap","ifname":"t0","id":"n0"}"#, &["t0"]),
        (r#"-netdev {"type":"user","ifname":"t0"} -netdev {broken"#, &[]),
        ("-netdev user,id=n0 -netdev tap,fd=3,id=n1 -netdev bridge,br=br0", &[]),
    ] {
        assert_eq!(parse(&argv(&format!("kvm {line}"))).unwrap().taps, expected, "{line}");
    }
}

proptest! {
    #[test]
    fn round_trip(
        name in "\\PC{1,20}",
        uuid in "[0-9a-f-]{1,36}",
        cpus in 1..512_u32,
        mebibytes in 1..1_000_000_u64,
        tap in "[a-z0-9]{1,15}",
    ) {
        let line = [
            "kvm", "-name", &format!("guest={},debug-threads=on", name.replace(',', ",,")), "-uuid", &uuid,
            "-smp", &format!("{cpus},maxcpus=512"), "-m", &mebibytes.to_string(),
            "-netdev", &format!("tap,id=n,ifname={tap}"),
        ].map(str::to_owned);
        let expected = VmArgs {
            identity: Identity { uuid: Some(uuid), name: Some(name), ..Identity::default() },
            vcpus: Some(cpus),
            max_vcpus: (cpus < 512).then_some(512),
            memory_bytes: Some(mebibytes * MIB),
            taps: vec![tap],
            ..VmArgs::default()
        };
        prop_assert_eq!(parse(&line), Some(expected));
    }
}
