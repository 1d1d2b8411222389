//! Names the process that has locked a file, as the kernel lists locks.

use std::fs;

use rustix::fd::AsFd;
use rustix::fs::{fstat, major, minor};

use crate::host::Host;

/// `None` where it is in another pid namespace.
pub(crate) fn holder(file: impl AsFd) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let id = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    holder_in(&fs::read_to_string(Host::default().proc().join("locks")).ok()?, &id)
}

/// `1: FLOCK  ADVISORY  WRITE 4711 00:20:1023 0 EOF`
fn holder_in(locks: &str, id: &str) -> Option<u32> {
    let pid = |line: &str| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, pid, file, ..] if file == id => pid.parse().ok(),
        _ => None,
    };
    locks.lines().find_map(pid)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn the_process_with_the_lock_is_named() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holder(&file), None);
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(holder(&file), Some(std::process::id()));
    }

    #[test]
    fn only_the_lock_of_this_file_counts() {
        let locks = "1: POSIX  ADVISORY  WRITE 1 00:20:7 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 2 00:20:7 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 3 00:20:70 0 EOF\n4: FLOCK  ADVISORY  WRITE 4 00:20:7 0 EOF\n";
        assert_eq!(holder_in(locks, "00:20:7"), Some(4));
    }
}
