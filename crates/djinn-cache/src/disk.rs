//! Bytes in a directory, shared by processes.
//!
//! A value is written to a temporary file, synced and renamed, so a reader sees all of it or nothing. Leftovers of killed
//! writers are swept whenever the directory is scanned. Times of modification order values by last use.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use djinn_diag::{Diagnostic, Remark, RemarkKind, input};

use crate::blob::{self, FORMAT_VERSION, Refusal};
use crate::folder::{Folder, Naming};

/// Warnings kept until they are taken; later ones are dropped.
const MAX_WARNINGS: usize = 16;

/// A process scans the directory anew after writing this part of its bound: others write too.
const SCAN_AFTER_PART: u64 = 16;

/// What a [`DiskCache`] has done in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounters {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Values written.
    pub stored: u64,
    /// Values not written: too large, or the system refused.
    pub dropped: u64,
    /// Values removed to make room.
    pub evicted: u64,
    /// Files that were not what they should be, and were removed.
    pub corrupt: u64,
    /// Leftovers of killed writers that were removed.
    pub swept: u64,
}

/// What a [`DiskCache`] is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes kept, at most.
    pub max_bytes: u64,
    /// If given, only values that were stored with this secret are found: what others put into the directory is refused.
    pub secret: Option<[u8; 32]>,
    /// Whether a value survives a power failure once it is stored. If not, it may be lost then, and is never half there.
    pub sync: bool,
}

/// What was found under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The value.
    Found(Vec<u8>),
    /// Nothing.
    Missing,
    /// A file that is not believed, and was removed.
    Refused(Refusal),
    /// Something that the system does not let us read now; there is a warning.
    Unreadable,
}

/// Values by key in a directory, at most so many bytes.
///
/// The bound holds after every write of a single process; each further process may exceed it by a sixteenth before it
/// notices. Files of other format versions do not count.
pub struct DiskCache {
    /// The directory of this format version; `None` if it cannot be used.
    dir: Option<Folder>,
    options: DiskOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes at the last scan and those written since.
    bytes: u64,
    since_scan: u64,
    counters: DiskCounters,
    warnings: Vec<Diagnostic>,
    remarks: Vec<Remark>,
}

impl DiskCache {
    /// Opens the cache in a directory, which is made if need be, and sweeps what killed writers left. If that fails, the
    /// cache stays empty, and [`DiskCache::take_warnings`] says why.
    pub fn open(dir: &Path, max_bytes: u64) -> DiskCache {
        let options = DiskOptions { max_bytes, secret: None, sync: true };
        match Folder::open(dir) {
            Ok(folder) => DiskCache::in_folder(&folder, options),
            Err(e) => DiskCache::unusable(dir, options, &e),
        }
    }

    /// Opens the cache in a folder, in the manner of [`DiskCache::open`].
    pub fn in_folder(folder: &Folder, options: DiskOptions) -> DiskCache {
        let own = match folder.closed_child(&version_name(FORMAT_VERSION)) {
            Ok(own) => own,
            Err(e) => return DiskCache::unusable(folder.path(), options, &e),
        };
        let cache = DiskCache { dir: Some(own), options, state: Mutex::default() };
        cache.note_other_versions(folder);
        if let Some(own) = &cache.dir {
            cache.make_room(own, &mut cache.lock());
        }
        cache
    }

    fn unusable(dir: &Path, options: DiskOptions, e: &io::Error) -> DiskCache {
        let cache = DiskCache { dir: None, options, state: Mutex::default() };
        cache.lock().warn(problem("open", dir, e).help("nothing is cached; name another directory"));
        cache
    }

    /// The value of a key. The namespace says what the values are and in which version of their own form: `plan/1`.
    pub fn get(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        match self.lookup(namespace, key) {
            Lookup::Found(value) => Some(value),
            Lookup::Missing | Lookup::Refused(_) | Lookup::Unreadable => None,
        }
    }

    /// The value of a key, or why there is none.
    pub fn lookup(&self, namespace: &str, key: &[u8]) -> Lookup {
        let found = match &self.dir {
            Some(dir) => self.read(dir, namespace, key),
            None => Lookup::Missing,
        };
        let counters = &mut self.lock().counters;
        match found {
            Lookup::Found(_) => counters.hits += 1,
            Lookup::Missing | Lookup::Refused(_) | Lookup::Unreadable => counters.misses += 1,
        }
        found
    }

    /// Whether there is something under a key. It may yet be refused.
    pub fn contains(&self, namespace: &str, key: &[u8]) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.contains(&blob::name(namespace, key)))
    }

    /// Bytes of values: those at the last scan of the directory and those written since.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Keeps a value, instead of the key's old one. `false`: it is too large, or the system refused, and there is a warning.
    pub fn put(&self, namespace: &str, key: &[u8], value: &[u8]) -> bool {
        let Some(dir) = &self.dir else { return false };
        let header = blob::header(&self.options.secret, namespace, key, value);
        let Some(header) = header.filter(|h| h.len() as u64 + value.len() as u64 <= self.options.max_bytes)
        else {
            self.lock().counters.dropped += 1;
            return false;
        };
        let name = blob::name(namespace, key);
        let written = dir.write(&name, &[&header, value], Naming::Replace, self.options.sync);
        let mut state = self.lock();
        match written {
            Ok(()) => {
                state.counters.stored += 1;
                let bytes = header.len() as u64 + value.len() as u64;
                state.bytes = state.bytes.saturating_add(bytes);
                state.since_scan = state.since_scan.saturating_add(bytes);
                if state.bytes > self.options.max_bytes
                    || state.since_scan > self.options.max_bytes / SCAN_AFTER_PART
                {
                    self.make_room(dir, &mut state);
                }
                true
            }
            Err(e) => {
                state.counters.dropped += 1;
                state.warn(problem("write to", dir.path(), &e));
                false
            }
        }
    }

    /// Removes a key.
    pub fn remove(&self, namespace: &str, key: &[u8]) {
        if let Some(dir) = &self.dir {
            self.remove_file(dir, &blob::name(namespace, key));
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> DiskCounters {
        self.lock().counters
    }

    /// What went wrong since the last call, each thing once.
    pub fn take_warnings(&self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.lock().warnings)
    }

    /// What was found out since the last call.
    pub fn take_remarks(&self) -> Vec<Remark> {
        std::mem::take(&mut self.lock().remarks)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, dir: &Folder, namespace: &str, key: &[u8]) -> Lookup {
        let name = blob::name(namespace, key);
        match read_file(dir, &name, &self.options, namespace, key) {
            Ok(Ok(value)) => Lookup::Found(value),
            Ok(Err(why)) => {
                self.lock().counters.corrupt += 1;
                self.remove_file(dir, &name);
                Lookup::Refused(why)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Lookup::Missing,
            Err(e) => {
                self.lock().warn(problem("read", &dir.path().join(name), &e));
                Lookup::Unreadable
            }
        }
    }

    fn remove_file(&self, dir: &Folder, name: &str) {
        match dir.remove(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                self.lock().warn(problem("remove", &dir.path().join(name), &e));
            }
            _ => {}
        }
    }

    /// Scans the directory: sweeps leftovers, and removes the values longest unused until the rest fits.
    fn make_room(&self, dir: &Folder, state: &mut State) {
        let mut values = match scan(dir, &mut state.counters) {
            Ok(values) => values,
            Err(e) => return state.warn(problem("list", dir.path(), &e)),
        };
        values.sort_unstable();
        state.bytes = values.iter().fold(0, |sum, v| sum.saturating_add(v.bytes));
        state.since_scan = 0;
        for value in values {
            if state.bytes <= self.options.max_bytes {
                break;
            }
            match dir.remove(&value.name) {
                Ok(()) => state.counters.evicted += 1,
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    state.warn(problem("remove from", dir.path(), &e));
                    continue;
                }
            }
            state.bytes -= value.bytes;
        }
    }

    fn note_other_versions(&self, dir: &Folder) {
        let entries = dir.entries().unwrap_or_default();
        let mut others: Vec<String> = entries
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| version_of(name).is_some_and(|v| v != FORMAT_VERSION))
            .collect();
        others.sort();
        if others.is_empty() {
            return;
        }
        self.lock().remarks.push(Remark {
            kind: RemarkKind::Analysis,
            pass: "cache".into(),
            rule: "other-version".into(),
            place: dir.path().display().to_string(),
            message: format!(
                "ignored {}, written by other versions of Djinn; this one uses {} (what is not needed may be deleted)",
                others.join(" and "),
                version_name(FORMAT_VERSION)
            ),
        });
    }
}

impl State {
    fn warn(&mut self, warning: Box<Diagnostic>) {
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&warning) {
            self.warnings.push(*warning);
        }
    }
}

fn version_name(version: u32) -> String {
    format!("v{version}")
}

fn version_of(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

/// The value in a file, which gets a new time of use, or why the file is not believed.
fn read_file(
    dir: &Folder,
    name: &str,
    options: &DiskOptions,
    namespace: &str,
    key: &[u8],
) -> io::Result<Result<Vec<u8>, Refusal>> {
    let Some(file) = dir.read(name)? else { return Ok(Err(Refusal::NotAFile)) };
    let bytes = file.metadata()?.len();
    if bytes > options.max_bytes {
        return Ok(Err(Refusal::TooLarge));
    }
    let value = blob::read(&file, bytes, &options.secret, namespace, key)?;
    // Without permission the value merely counts as older than it is.
    let _ = file.set_modified(SystemTime::now());
    Ok(value)
}

/// A value on disk; ordered by last use.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    used: SystemTime,
    name: String,
    bytes: u64,
}

/// All values; leftovers of killed writers are removed.
fn scan(dir: &Folder, counters: &mut DiskCounters) -> io::Result<Vec<Stored>> {
    let mut values = Vec::new();
    for entry in dir.entries()? {
        if entry.name.ends_with(".tmp") {
            counters.swept += u64::from(entry.is_file && dir.sweep(&entry.name));
        } else if entry.name.ends_with(".blob") && entry.is_file {
            values.push(Stored { used: entry.modified, name: entry.name, bytes: entry.bytes });
        }
    }
    Ok(values)
}

fn problem(action: &str, path: &Path, e: &io::Error) -> Box<Diagnostic> {
    let code = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "cache.full",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "cache.permission",
        _ => "cache.io",
    };
    let help = match code {
        "cache.full" => "make room on the disk or give the cache a smaller bound",
        "cache.permission" => "name a cache directory that you may write to",
        _ => "delete the cache directory or name another one",
    };
    input(code, format!("cannot {action} '{}': {e}", path.display())).shortened().help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_lack_of_rights_are_told_apart() {
        let of = |kind| problem("write to", Path::new("/c"), &io::Error::from(kind)).code;
        assert_eq!(of(io::ErrorKind::StorageFull), "cache.full");
        assert_eq!(of(io::ErrorKind::ReadOnlyFilesystem), "cache.permission");
        assert_eq!(of(io::ErrorKind::NotADirectory), "cache.io");
    }

    #[test]
    fn warnings_are_kept_once_and_not_without_bound() {
        let mut state = State::default();
        for i in 0..100 {
            state.warn(input("cache.io", format!("{}", i / 2)));
        }
        assert_eq!(state.warnings.len(), MAX_WARNINGS);
    }
}
