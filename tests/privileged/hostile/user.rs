//! The attackers: tenants of ordinary users of the host.

use std::os::fd::OwnedFd;

use vm_metrics_testkit::tenant::{Action, Tenant, TenantSpec};

use super::lab::Scene;

/// An ordinary user, `nobody`.
pub(super) const ATTACKER: u32 = 65_534;
/// Another ordinary user.
pub(super) const NEIGHBOUR: u32 = 64_901;

impl Scene {
    /// Starts a process of the attacker with this program name and these arguments.
    pub(super) fn attacker(&self, program: &str, argv: &[&str]) -> Tenant {
        self.tenant_of(ATTACKER, program, argv, Vec::new())
    }

    /// Starts it in a user and network namespace of its own, where it may make TAPs.
    pub(super) fn attacker_in_netns(&self, program: &str, argv: &[&str]) -> Tenant {
        let mut tenant = self.attacker(program, argv);
        tenant.perform(&Action::Unshare { net: true, mount: false, pid: false }).unwrap();
        tenant
    }

    /// Starts a process of any user, with these descriptors of the test under these numbers, from 100 on.
    pub(super) fn tenant_of(
        &self,
        uid: u32,
        program: &str,
        argv: &[&str],
        descriptors: Vec<(OwnedFd, i32)>,
    ) -> Tenant {
        let argv = argv.iter().map(Into::into).collect();
        let uid = Some(uid);
        let program = self.program(program);
        Tenant::start(TenantSpec { program, argv, uid, descriptors, directory: None }).unwrap()
    }
}

/// Returns the arguments of an idle program (`Scene::idle_program`), followed by a hypervisor's command line.
pub(super) fn idle_argv(argv: &[&str]) -> Vec<String> {
    let idle = ["-c", "kill -STOP $$", "sh"];
    idle.iter().chain(argv).map(ToString::to_string).collect()
}
