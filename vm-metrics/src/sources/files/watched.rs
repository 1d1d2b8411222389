//! Reads files again only when they have changed.
//!
//! The last valid content counts while a file is half written or invalid. A deleted file counts no more.

use std::collections::{BinaryHeap, HashMap};
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::operators::Operators;
use crate::sources::SourceError;

/// Each is a look per tick.
pub const MAX_ENTRIES: usize = 16_384;

/// A file may change twice within the grain of its time stamp; one that changed this long ago has settled.
const SETTLED: Duration = Duration::from_secs(2);

/// The files of one directory, or of its subdirectories, with the last good content of each.
#[derive(Debug)]
pub struct WatchedFiles<T> {
    operators: Operators,
    /// In bytes; a larger file is a problem.
    limit: u64,
    files: HashMap<PathBuf, WatchedFile<T>>,
}

#[derive(Debug)]
struct WatchedFile<T> {
    stamp: Option<Stamp>,
    value: Option<T>,
    problem: Option<SourceError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> WatchedFiles<T> {
    pub fn new(operators: Operators, limit: u64) -> Self {
        Self { operators, limit, files: HashMap::new() }
    }

    /// Reads these files and no others. `parse` gets changed contents. Returns the values in the order of their paths.
    pub fn look<'s>(
        &'s mut self,
        paths: impl IntoIterator<Item = PathBuf>,
        problems: &mut Vec<SourceError>,
        mut parse: impl FnMut(&Path, &[u8]) -> Result<T, String>,
    ) -> Vec<(&'s Path, &'s mut T)> {
        let mut before = std::mem::take(&mut self.files);
        for path in paths {
            let known = before.remove(&path);
            match self.look_at(&path, known, &mut parse) {
                Some(watched) => drop(self.files.insert(path, watched)),
                // Gone since the listing.
                None => continue,
            }
        }
        let mut files: Vec<_> = self.files.iter_mut().collect();
        files.sort_unstable_by_key(|(path, _)| *path);
        problems.extend(files.iter().filter_map(|(_, watched)| watched.problem.clone()));
        files
            .into_iter()
            .filter_map(|(path, watched)| Some((path.as_path(), watched.value.as_mut()?)))
            .collect()
    }

    /// The sorted names in an operator's directory, without those that begin with a dot: such files are not ready yet. Of too
    /// many names the first count.
    pub fn names(
        &self,
        directory: &Path,
        problems: &mut Vec<SourceError>,
    ) -> Result<Vec<PathBuf>, SourceError> {
        self.names_where(directory, is_ready, problems)
    }

    /// The same with another choice.
    pub fn names_where(
        &self,
        directory: &Path,
        is_wanted: fn(&DirEntry) -> bool,
        problems: &mut Vec<SourceError>,
    ) -> Result<Vec<PathBuf>, SourceError> {
        self.operators.check_directory(directory)?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::Absent { path: directory.to_owned() },
            _ => SourceError::io("list", directory, error),
        };
        let (mut paths, mut left_out) = (BinaryHeap::new(), 0);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !is_wanted(&entry) {
                continue;
            }
            paths.push(entry.path());
            if paths.len() > MAX_ENTRIES {
                paths.pop();
                left_out += 1;
            }
        }
        if left_out > 0 {
            let problem = format!("{left_out} of its entries are left out: more than {MAX_ENTRIES}");
            problems.push(SourceError::content(directory, problem));
        }
        Ok(paths.into_sorted_vec())
    }

    fn look_at(
        &self,
        path: &Path,
        known: Option<WatchedFile<T>>,
        parse: &mut impl FnMut(&Path, &[u8]) -> Result<T, String>,
    ) -> Option<WatchedFile<T>> {
        let mut watched = known.unwrap_or(WatchedFile { stamp: None, value: None, problem: None });
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                watched.stamp = None;
                watched.problem = Some(SourceError::io("read", path, error));
                return Some(watched);
            }
        };
        let stamp = Stamp::of(&metadata);
        if watched.stamp == Some(stamp) {
            return Some(watched);
        }
        watched.stamp = None;
        match self.operators.read(path, self.limit) {
            Ok(content) => {
                watched.stamp = settled(&metadata).then_some(stamp);
                watched.problem = match parse(path, &content) {
                    Ok(value) => {
                        watched.value = Some(value);
                        None
                    }
                    Err(problem) => Some(watched.spoilt(path, problem)),
                };
            }
            Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => return None,
            // Another user can change it: nothing of it counts.
            Err(error @ SourceError::Content { .. }) => {
                watched = WatchedFile { stamp: None, value: None, problem: Some(error) };
            }
            Err(error) => watched.problem = Some(error),
        }
        Some(watched)
    }
}

impl<T> WatchedFile<T> {
    fn spoilt(&self, path: &Path, problem: String) -> SourceError {
        let kept = if self.value.is_some() { "; its last valid content counts until then" } else { "" };
        SourceError::content(path, format!("{problem}{kept}"))
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn settled(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > SETTLED)
}

/// Whether there is no room for one more.
pub fn is_full(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.flatten().filter(is_ready).count() >= MAX_ENTRIES)
}

fn is_ready(entry: &DirEntry) -> bool {
    !entry.file_name().as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// The last good content counts while the file is spoilt.
    #[test]
    fn a_changed_file_is_parsed_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let mut watched = WatchedFiles::new(Operators::default(), 16);
        let mut parsed = 0;
        let mut look = |watched: &mut WatchedFiles<u32>| {
            let mut problems = Vec::new();
            let paths = watched.names(dir.path(), &mut problems).unwrap();
            let values = watched.look(paths, &mut problems, |_, content| {
                parsed += 1;
                String::from_utf8_lossy(content).trim().parse().map_err(|_| "no number".to_owned())
            });
            let values: Vec<_> = values.into_iter().map(|(_, value)| *value).collect();
            (values, problems.iter().map(ToString::to_string).collect::<String>(), parsed)
        };
        let write = |content: &str, ago: u64| {
            fs::write(&path, content).unwrap();
            let at = SystemTime::now() - Duration::from_secs(ago);
            File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        };

        let at = |problem: &str| format!("{}: {problem}", path.display());
        write("x", 60);
        assert_eq!(look(&mut watched), (vec![], at("no number"), 1));
        write("1", 60);
        assert_eq!(look(&mut watched), (vec![1], String::new(), 2));
        assert_eq!(look(&mut watched), (vec![1], String::new(), 2));
        write("half", 60);
        let kept = at("no number; its last valid content counts until then");
        assert_eq!(look(&mut watched), (vec![1], kept.clone(), 3));
        assert_eq!(look(&mut watched), (vec![1], kept, 3));
        // A moment ago: it may change again without showing it.
        write("2", 0);
        assert_eq!(look(&mut watched), (vec![2], String::new(), 4));
        assert_eq!(look(&mut watched), (vec![2], String::new(), 5));
        write("12345678901234567", 60);
        let too_large = format!("cannot read {}: larger than 16 bytes", path.display());
        assert_eq!(look(&mut watched), (vec![2], too_large, 5));
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut watched), (vec![], String::new(), 5));
    }

    /// Hidden files are not ready yet.
    #[test]
    fn a_missing_directory_is_absent() {
        let files = WatchedFiles::<()>::new(Operators::default(), 16);
        let names = |directory: &Path| files.names(directory, &mut Vec::new());
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(names(&missing), Err(SourceError::Absent { path }) if path == missing));
        fs::write(dir.path().join(".new"), "").unwrap();
        fs::write(dir.path().join("old"), "").unwrap();
        assert_eq!(names(dir.path()).unwrap(), [dir.path().join("old")]);
        assert!(names(&dir.path().join("old")).unwrap_err().to_string().starts_with("cannot list "));
    }
}
