//! Finds the directories with libvirt's records of running domains.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::files::operators::Operators;

/// Of libvirt's own daemons.
const SYSTEM: &[&str] = &["/run/libvirt/qemu", "/run/libvirt/ch"];

/// Of a user's session, in the user's directory.
const SESSION: &[&str] = &["libvirt/qemu/run", "libvirt/qemu", "libvirt/ch"];

/// Where each user who is logged in has a directory, named by the number of the user.
const USERS: &str = "/run/user";

#[derive(Debug)]
pub enum RecordDirs {
    /// By the configuration.
    One(PathBuf),
    Usual,
}

impl RecordDirs {
    /// The first has to be there, if any.
    pub fn directories(&self, operators: &Operators) -> Vec<PathBuf> {
        match self {
            Self::One(directory) => vec![directory.clone()],
            Self::Usual => {
                let system = SYSTEM.iter().map(PathBuf::from);
                system.chain(sessions(Path::new(USERS), operators)).collect()
            }
        }
    }
}

/// A user who is no operator may write anything there, so it is not looked at.
fn sessions(users: &Path, operators: &Operators) -> Vec<PathBuf> {
    let names = fs::read_dir(users).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let uids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let mut uids: Vec<u32> = uids.filter(|uid| operators.include(*uid)).collect();
    uids.sort_unstable();
    let of_user = |uid: u32| SESSION.iter().map(move |place| users.join(uid.to_string()).join(place));
    uids.into_iter().flat_map(of_user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Trust;

    #[test]
    fn sessions_of_trusted_users_count() {
        let users = tempfile::tempdir().unwrap();
        for name in ["1000", "2000", "x", "-1"] {
            fs::create_dir(users.path().join(name)).unwrap();
        }
        let operators = Operators::new(Trust::only([1000]));
        let found = sessions(users.path(), &operators);
        let expected = SESSION.iter().map(|place| users.path().join("1000").join(place));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}
