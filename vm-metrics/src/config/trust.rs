//! The section `[trust]`: users by name or number.

use std::ops::Range;

use nix::unistd::User;
use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use crate::model::Trust;

/// As typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTrust {
    users: Option<Vec<Spanned<String>>>,
    uids: Option<Vec<u32>>,
}

impl RawTrust {
    /// Looks up the names. `refuse` makes an error from the place of a name and a problem.
    pub(super) fn resolve(
        self,
        refuse: impl Fn(Range<usize>, String) -> ConfigError,
    ) -> Result<Trust, ConfigError> {
        let Self { users, uids } = self;
        if users.is_none() && uids.is_none() {
            return Ok(Trust::default());
        }
        let mut trusted = uids.unwrap_or_default();
        for name in users.unwrap_or_default() {
            let uid = uid_of(name.get_ref()).map_err(|problem| refuse(name.span(), problem))?;
            trusted.push(uid);
        }
        Ok(Trust::only(trusted))
    }
}

fn uid_of(name: &str) -> Result<u32, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("users: this host has no user {name:?}; numbers go into uids")),
        Err(errno) => Err(format!("users: cannot look up {name:?}: {}", errno.desc())),
    }
}
