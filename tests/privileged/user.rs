//! The user of a test's daemon: root, or the unit's user.

use std::path::Path;
use std::process::Command;

use vm_metrics_testkit::daemon::Daemon;
use vm_metrics_testkit::service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    /// With the unit's capabilities, and a bpffs as systemd mounts it.
    Service,
}

pub(crate) const USERS: [User; 2] = [User::Root, User::Service];

impl User {
    /// Prepares the host. Call it in a mount namespace of the test.
    pub(crate) fn prepare_host(self) {
        if self == Self::Service {
            service::prepare_host().unwrap();
        }
    }

    /// Starts a daemon after the preparation that the unit makes.
    pub(crate) fn start(self, binary: &Path, config: &Path) -> anyhow::Result<Daemon> {
        let mut command = match self {
            Self::Root => Command::new(binary),
            Self::Service => {
                service::before_start()?;
                service::command(binary, &service::capabilities())
            }
        };
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        let daemon = Daemon::start_command(command)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Makes the daemon's user the owner.
    pub(crate) fn give(self, path: &Path) {
        if self == Self::Service {
            service::give_to_service(path).unwrap();
        }
    }
}
