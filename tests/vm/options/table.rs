//! The QEMU options under test.

/// Options that the daemon parses completely. `{dir}` has the files of [`FILES`], and `{uuid}` differs each time.
pub(super) const PC: &[&str] = &[
    "",
    "-m 16",
    "-M q35",
    "-M microvm",
    "-M isapc",
    "-machine type=pc-q35-6.2,accel=tcg",
    "-machine q35 -machine accel=tcg -M pc",
    "-nodefaults -no-user-config -accel tcg,thread=single",
    // Sizes.
    "-m 0",
    "-m 010",
    "-m 0x40",
    "-m 0x40M",
    "-m 32m",
    "-m 0.25g",
    "-m 0.1G",
    "-m 16.777M",
    "-m 1.5G",
    "-m 64.",
    "-m 100000b",
    "-m size=32768K",
    "-m 1048576B",
    "--m 64 --smp 2",
    "-m 64 -m 32",
    "-m 64M -m slots=2,maxmem=1G",
    "-m 64 -m 0",
    "-m maxmem=1G,slots=2",
    "-m 64 -M memory.size=32M",
    "-M memory.size=32M -m 64",
    "-M q35,memory.size=33554432",
    "-M q35,memory.size=32",
    // Backends and modules.
    "-M q35,memory-backend=m -object memory-backend-memfd,id=m,size=192M",
    "-M q35,memory-backend=m -object memory-backend-memfd,id=m,size=192M -m 192",
    r#"-M memory-backend=m -object {"qom-type":"memory-backend-ram","id":"m","size":50331648}"#,
    "-m 64 -numa node,memdev=a -numa node,memdev=b -object memory-backend-ram,id=a,size=32M -object memory-backend-ram,id=b,size=32M",
    "-m 64 -object memory-backend-ram,id=a,size=32M",
    "-m size=256,slots=8,maxmem=4G -object memory-backend-ram,id=a,size=128M -device pc-dimm,memdev=a",
    r#"-m size=256,slots=8,maxmem=4G -object {"qom-type":"memory-backend-ram","id":"a","size":134217728} -device {"driver":"pc-dimm","memdev":"a","id":"d"}"#,
    "-device pc-dimm,memdev=a -device pc-dimm,memdev=b -object memory-backend-ram,id=a,size=128M -object memory-backend-ram,id=b,size=256M -m 256,slots=4,maxmem=2G",
    "-M q35,nvdimm=on -m 256,slots=8,maxmem=4G -object memory-backend-ram,id=a,size=128M -device nvdimm,memdev=a",
    "-m 256,slots=4,maxmem=4G -object memory-backend-ram,id=a,size=128M -device virtio-pmem-pci,memdev=a,id=p",
    "-m 256,slots=8,maxmem=4G -object memory-backend-ram,id=a,size=128M -device virtio-mem-pci,memdev=a,requested-size=64M",
    // vCPUs.
    "-smp 2",
    "-smp 0x2",
    "-smp 02",
    "-smp 0",
    "-smp cpus=2,sockets=1,cores=2,threads=1",
    "-smp sockets=2,cores=2",
    "-smp sockets=2,dies=2,cores=1,threads=2",
    "-smp cores=3",
    "-smp threads=2",
    "-smp maxcpus=3",
    "-smp sockets=2,maxcpus=6",
    "-smp cpus=0,cores=2",
    "-smp cpus=2,maxcpus=0",
    "-smp 2,maxcpus=4",
    "-smp 2 -smp 3",
    "-smp 2 -smp maxcpus=4",
    "-smp 2,maxcpus=4 -smp 3",
    "-smp sockets=2 -smp cores=2",
    "-M smp.cpus=2,smp.maxcpus=4",
    "-smp 1,sockets=2,cores=2,maxcpus=4 -cpu kvm64 -device kvm64-x86_64-cpu,id=cpu2,socket-id=0,core-id=1,thread-id=0",
    "-name plugged,debug-threads=on -smp 1,sockets=4,maxcpus=4 -device qemu64-x86_64-cpu,socket-id=1,core-id=0,thread-id=0 -device driver=qemu64-x86_64-cpu,socket-id=3,core-id=0,thread-id=0",
    r#"-smp 1,sockets=2,maxcpus=2 -device {"driver":"qemu64-x86_64-cpu","id":"c","socket-id":1,"core-id":0,"thread-id":0}"#,
    // Values that look like options.
    "-smp 2 -L -version -m 64",
    "-m 64 -L -m -smp 2",
    "-smp 2 -L -daemonize --L -smp",
    // Files.
    "-readconfig {dir}/incus.cfg",
    "-readconfig {dir}/incus.cfg -m 64 -smp 3",
    "-m 64 -smp 3 -readconfig {dir}/incus.cfg",
    "-m 64 -readconfig {dir}/plain.cfg",
    "-readconfig {dir}/modules.cfg",
    // Names.
    "-name first,process=x",
    "-name second,,with,,commas",
    "-name guest=third -name process=y",
    "-name fourth -name guest=fifth",
    "-uuid {uuid}",
    "-name sixth -uuid {uuid}",
    "-uuid 6f1b3a7e-0000-4000-8000-000000000003 -uuid {uuid}",
];

pub(super) const ARM: &[(&str, &str)] = &[
    ("aarch64", "-M virt"),
    ("aarch64", "-M virt-7.2,gic-version=3 -smp 2 -m 64"),
    ("arm", "-M virt -m 0"),
    ("aarch64", "-M raspi3b -smp 4 -m 1G"),
    ("aarch64", "-M sbsa-ref -smp 2 -m 1G"),
    ("arm", "-M ast2600-evb -smp 2 -m 512"),
    ("arm", "-M vexpress-a9 -smp 1 -m 128"),
];

/// Boards with the default sizes of the real ones, which the daemon does not know.
pub(super) const BOARDS: &[(&str, &str)] = &[
    ("aarch64", "-M raspi3b"),
    ("aarch64", "-M sbsa-ref"),
    ("arm", "-M ast2600-evb"),
    ("arm", "-M mps2-an385"),
    ("arm", "-M npcm750-evb"),
];

pub(super) const FILES: &[(&str, &str)] = &[
    (
        "incus.cfg",
        "# Machine\n[machine]\n  type = \"q35\"\n  accel = \"tcg\"\n\n[memory]\nsize = \"96M\"\n\
         [smp-opts]\ncpus = \"2\"\nmaxcpus = \"4\"\n",
    ),
    ("plain.cfg", "[memory]\nsize = \"96\"\n"),
    (
        "modules.cfg",
        "[memory]\nsize = \"256M\"\nslots = \"4\"\nmaxmem = \"4G\"\n\
         [object \"m0\"]\nqom-type = \"memory-backend-ram\"\nsize = \"128M\"\n\
         [device \"dimm0\"]\ndriver = \"pc-dimm\"\nmemdev = \"m0\"\n\
         [smp-opts]\ncpus = \"1\"\nsockets = \"2\"\nmaxcpus = \"2\"\n\
         [device \"cpu1\"]\ndriver = \"qemu64-x86_64-cpu\"\nsocket-id = \"1\"\ncore-id = \"0\"\nthread-id = \"0\"\n",
    ),
];
