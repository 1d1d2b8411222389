//! A tenant's configuration file on a hanging file system delays nothing.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vm_metrics_testkit::metrics_text::Metrics;
use vm_metrics_testkit::wait::SOON;

use super::lab::Scene;
use super::pace::Pace;
use super::user::{ATTACKER, NEIGHBOUR};
use crate::isolation::isolated;

const VICTIM: &str = "44444444-4444-4444-8444-444444444444";

/// A FUSE file system of the attacker that never replies.
pub(super) struct HangingFs {
    pub(super) mountpoint: PathBuf,
    device: Option<File>,
}

impl HangingFs {
    /// Every user may access it, as with `user_allow_other` for `fusermount`.
    pub(super) fn mount(mountpoint: PathBuf) -> Self {
        Self::mount_of(ATTACKER, mountpoint)
    }

    /// Mounts it for another user.
    pub(super) fn mount_of(uid: u32, mountpoint: PathBuf) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options =
            format!("fd={},rootmode=40000,user_id={uid},group_id={uid},allow_other\0", device.as_raw_fd());
        let options = std::ffi::CString::from_vec_with_nul(options.into_bytes()).unwrap();
        mount("attack", &mountpoint, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { mountpoint, device: Some(device) }
    }
}

impl HangingFs {
    /// Makes all pending and new requests fail.
    pub(super) fn end(&mut self) {
        self.device = None;
    }
}

impl Drop for HangingFs {
    fn drop(&mut self) {
        self.end();
        if let Err(error) = unmount(&self.mountpoint, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.mountpoint.display());
        }
    }
}

fn config(directory: &Path, uid: u32, vcpus: u32) -> String {
    let path = directory.join("vm.json");
    fs::write(&path, format!("{{\"machine-config\":{{\"vcpu_count\":{vcpus},\"mem_size_mib\":128}}}}"))
        .unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn hanging_files_delay_nobody() {
    isolated("hostile::hanging_config_file::hanging_files_delay_nobody", || {
        let scene = Scene::new();
        let mut victim = scene.victim(VICTIM, "vmt0");
        let hanging = HangingFs::mount(scene.directory_of(ATTACKER, "hanging"));
        for (round, start) in [Scene::daemon, Scene::daemon_of_root].into_iter().enumerate() {
            let daemon = start(&scene, "");
            let pace = Pace::of(&daemon);
            let file = hanging.mountpoint.join("vm.json");
            let file = file.to_str().unwrap();
            let fakes = |number: usize| {
                scene.attacker(
                    "firecracker",
                    &["--id", &format!("fake{number}"), "--no-api", "--config-file", file],
                )
            };
            let _fakes: Vec<_> = (0..8).map(fakes).collect();
            // The daemon looks for sockets on the same file system.
            let socket = hanging.mountpoint.join("api.sock");
            let api = |number: usize| {
                scene.attacker(
                    "firecracker",
                    &["--id", &format!("api{number}"), "--api-sock", socket.to_str().unwrap()],
                )
            };
            let _apis: Vec<_> = (0..8).map(api).collect();
            let own = config(&scene.directory_of(NEIGHBOUR, &format!("own{round}")), NEIGHBOUR, 3);
            let argv = ["--id", "modest", "--no-api", "--config-file", &own];
            let _modest = scene.tenant_of(NEIGHBOUR, "firecracker", &argv, Vec::new());
            let read = |metrics: &Metrics| {
                let vcpus = metrics.value("vm_allocated_vcpus", &[("instance_id", "modest")])?;
                let fakes = (0..8).filter_map(|number| {
                    metrics.value("vm_running", &[("instance_id", &format!("fake{number}"))])
                });
                (vcpus == 3.0 && fakes.count() == 8).then_some(())
            };
            daemon
                .wait_for(SOON, "the neighbour's file", read)
                .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.log()));
            pace.assert_kept(&daemon, 15, || victim.work(2));
            victim.assert_exact(&daemon);
            let over = |metrics: &Metrics| {
                let user = ATTACKER.to_string();
                let mut over = metrics.samples("vm_exporter_over_budget");
                over.find(|one| one.label("user") == Some(&user) && one.label("resource") == Some("paths"))
                    .map(drop)
            };
            daemon.wait_for(SOON, "the attacker's overuse", over).unwrap();
        }
    });
}
