//! A host made of files that runs the VMs of managers.

use std::fs;
use std::iter;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::api;
use super::row::{Cells, Row};
use crate::fixture::{run, stderr, stdout};

/// The directory of libvirt's records on the host.
const TABLES: &str = "[sources.libvirt]\ndir = \"{host}/libvirt\"\n";

/// The distance between the pids of a first and a second process.
const CHILD: u32 = 500;

pub(super) struct Host {
    dir: TempDir,
    config: PathBuf,
}

impl Host {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (proc, sys) = (dir.path().join("proc"), dir.path().join("sys"));
        write(&proc.join("stat"), "cpu 1 0 1 1 0 0 0 0 0 0\nbtime 1700000000\n");
        write(&proc.join("thread-self/ns/net"), "");
        fs::create_dir_all(sys.join("class/net")).unwrap();
        fs::create_dir_all(sys.join("class/misc/kvm")).unwrap();
        fs::create_dir(dir.path().join("libvirt")).unwrap();
        let uid = fs::metadata(dir.path()).unwrap().uid();
        let tables = TABLES.replace("{host}", dir.path().to_str().unwrap());
        let config = dir.path().join("config.toml");
        write(
            &config,
            &format!("[host]\nproc = {proc:?}\nsys = {sys:?}\n[trust]\nuids = [{uid}]\n{tables}\n"),
        );
        Self { dir, config }
    }

    pub(super) fn put(&self, pid: u32, row: &Row) {
        let process = self.put_process(pid, 1, row);
        self.put_descriptors(&process, kvm(row).map(|target| (target, None)).chain(taps(&row.taps)), row);
        self.put_files(&process, pid, row);
        if !row.child_taps.is_empty() {
            let child = self.put_process(pid + CHILD, pid, row);
            self.put_descriptors(&child, taps(&row.child_taps), row);
        }
    }

    fn put_process(&self, pid: u32, parent: u32, row: &Row) -> PathBuf {
        let process = self.dir.path().join("proc").join(pid.to_string());
        for directory in ["fd", "fdinfo", "root", "ns"] {
            fs::create_dir_all(process.join(directory)).unwrap();
        }
        symlink(&row.program, process.join("exe")).unwrap();
        symlink(&row.directory, process.join("cwd")).unwrap();
        let args: String = words(&row.args).iter().map(|arg| format!("{arg}\0")).collect();
        write(&process.join("cmdline"), &args);
        write(&process.join("cgroup"), &format!("0::{}\n", row.cgroup));
        match row.own_netns {
            true => write(&process.join("ns/net"), ""),
            false => symlink("../../thread-self/ns/net", process.join("ns/net")).unwrap(),
        }
        put_state(&process, [pid, parent], row);
        process
    }

    fn put_descriptors<'a>(
        &self,
        process: &Path,
        targets: impl Iterator<Item = (String, Option<&'a String>)>,
        row: &Row,
    ) {
        for (descriptor, (target, tap)) in (3..).zip(targets) {
            symlink(target, process.join(format!("fd/{descriptor}"))).unwrap();
            let line = tap.map(|tap| format!("iff:\t{tap}\n")).unwrap_or_default();
            let info = format!("pos:\t0\nflags:\t0104002\nmnt_id:\t25\nino:\t9\n{line}");
            write(&process.join(format!("fdinfo/{descriptor}")), &info);
            if let Some(tap) = tap.filter(|_| !row.own_netns) {
                put_device(&self.dir.path().join("sys/class/net").join(tap), descriptor);
            }
        }
    }

    fn put_files(&self, process: &Path, pid: u32, row: &Row) {
        let in_root = |path: &str| process.join("root").join(path.trim_start_matches('/'));
        for (path, content) in &row.files {
            write(&in_root(path), content);
        }
        for (path, content) in &row.records {
            write(&self.dir.path().join(path), &content.replace("{pid}", &pid.to_string()));
        }
        if let Some(api) = &row.api {
            api::serve(&in_root(&api.socket), api.answers.clone());
        }
    }

    /// Returns the VMs with their pids.
    pub(super) fn vms(&self) -> Vec<(u32, Cells)> {
        let output = run(&["snapshot", "--json", "--config", self.config.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let vms = document["vms"].as_array().unwrap();
        let pid = |vm: &Value| vm["hypervisor_pid"].as_u64().unwrap() as u32;
        vms.iter().map(|vm| (pid(vm), cells(vm, pid(vm)))).collect()
    }
}

/// Returns the descriptors of a KVM VM.
fn kvm(row: &Row) -> impl Iterator<Item = String> {
    let vcpu = |number| format!("anon_inode:kvm-vcpu:{number}");
    let vm = move |vcpus| iter::once("anon_inode:kvm-vm".to_owned()).chain((0..vcpus).map(vcpu));
    row.kvm_vcpus.into_iter().flat_map(vm)
}

fn taps(taps: &[String]) -> impl Iterator<Item = (String, Option<&String>)> {
    taps.iter().map(|tap| ("/dev/net/tun".to_owned(), Some(tap)))
}

/// Writes the files of the kernel about a process.
fn put_state(process: &Path, [pid, parent]: [u32; 2], row: &Row) {
    let owner = fs::metadata(process).unwrap();
    let ids = |name, id: u32| format!("{name}:\t{id}\t{id}\t{id}\t{id}\n");
    let ids = ids("Uid", owner.uid()) + &ids("Gid", owner.gid());
    write(&process.join("status"), &format!("Name:\tvmm\n{ids}Groups:\t\n"));
    let name: String = row.program.rsplit('/').next().unwrap().chars().take(15).collect();
    let threads: Vec<_> = iter::once(&name).chain(&row.threads).collect();
    // systemd gives the process of a service a session. Any other process has a terminated leader, as a process has
    // that became a daemon. The last field but nine is the CPU time of guests.
    let session = if row.kvm_vcpus.is_some() && row.cgroup.ends_with(".service") { pid } else { 1 };
    let guest_ticks = if row.kvm_vcpus.is_some() { 4 } else { 0 };
    let stat = format!(
        "{pid} ({name}) S {parent} {pid} {session} 0 -1 0 0 0 0 0 5 5 0 0 20 0 {} 0 9000 9999999 999 {} {guest_ticks} {}\n",
        threads.len(),
        ["0"; 18].join(" "),
        ["0"; 9].join(" ")
    );
    write(&process.join("stat"), &stat);
    write(&process.join("statm"), "9999 999 9 9 0 9 0\n");
    write(&process.join("comm"), &format!("{name}\n"));
    for (number, name) in threads.into_iter().enumerate() {
        let tid = if number == 0 { pid } else { pid * 10 + number as u32 };
        let thread = process.join("task").join(tid.to_string());
        write(&thread.join("comm"), &format!("{name}\n"));
        write(&thread.join("stat"), &stat);
        write(&thread.join("schedstat"), "1000000 1000 10\n");
    }
}

fn put_device(device: &Path, index: u32) {
    write(&device.join("ifindex"), &format!("{index}\n"));
    write(&device.join("tun_flags"), "0x1002\n");
    write(&device.join("carrier"), "1\n");
    for counter in ["bytes", "packets", "errors", "dropped"] {
        for direction in ["rx", "tx"] {
            write(&device.join(format!("statistics/{direction}_{counter}")), "0\n");
        }
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Splits a line into arguments as a shell does. Single quotes may enclose spaces.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// Returns the cells of a VM in the snapshot.
fn cells(vm: &Value, pid: u32) -> Cells {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let without_pid = |value: &Value| text(value).replace(&pid.to_string(), "{pid}");
    let nics = |list: &str| vm[list].as_array().unwrap().iter();
    Cells {
        hypervisor: text(&vm["hypervisor"]),
        id: without_pid(&vm["instance_id"]),
        name: without_pid(&vm["instance_name"]),
        vcpus: vm["allocated_vcpus"].as_u64(),
        mebibytes: vm["allocated_memory_bytes"].as_u64().map(|bytes| bytes >> 20),
        nics: nics("nics").map(|nic| text(&nic["device"])).collect(),
        unmonitored: nics("unmonitored")
            .map(|nic| format!("{} {}", text(&nic["kind"]), text(&nic["name"])))
            .collect(),
        project: vm["project"].as_str().map(str::to_owned),
        namespace: vm["namespace"].as_str().map(str::to_owned),
        pod_uid: vm["pod_uid"].as_str().map(str::to_owned),
    }
}
