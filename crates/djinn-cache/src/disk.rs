//! Bytes in a directory, shared by processes.
//!
//! A value is written to a temporary file, synced and renamed, so a reader sees all of it or nothing. The writer holds a
//! lock on its temporary file (`flock`, which the system releases when a process dies, however it dies); temporary files
//! that nobody holds are leftovers of killed writers and are swept whenever the directory is scanned. Times of
//! modification order values by last use.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use djinn_diag::{Diagnostic, Remark, RemarkKind, input};

use crate::blob::{self, FORMAT_VERSION};

/// A temporary file that was swept between its creation and its locking, before anything was written, is made anew this
/// many times.
const ATTEMPTS: usize = 1000;

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

/// Values by key in a directory, at most so many bytes.
///
/// The bound holds after every write of a single process; each further process may exceed it by a sixteenth before it
/// notices. Files of other format versions do not count.
pub struct DiskCache {
    /// The directory of this format version; `None` if it cannot be used.
    dir: Option<PathBuf>,
    max_bytes: u64,
    state: Mutex<State>,
    next_temporary: AtomicU64,
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
        let mut state = State::default();
        let own = match prepare(dir) {
            Ok(own) => Some(own),
            Err(e) => {
                state.warn(problem("open", dir, &e).help("nothing is cached; name another directory"));
                None
            }
        };
        let cache =
            DiskCache { dir: own, max_bytes, state: Mutex::new(state), next_temporary: AtomicU64::new(0) };
        if let Some(own) = &cache.dir {
            cache.note_other_versions(dir);
            cache.make_room(own, &mut cache.lock());
        }
        cache
    }

    /// The value of a key. The namespace says what the values are and in which version of their own form: `plan/1`.
    pub fn get(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        let found = self
            .dir
            .as_ref()
            .and_then(|dir| self.read(&dir.join(blob::name(namespace, key)), namespace, key));
        let counters = &mut self.lock().counters;
        match found {
            Some(_) => counters.hits += 1,
            None => counters.misses += 1,
        }
        found
    }

    /// Keeps a value, instead of the key's old one. `false`: it is too large, or the system refused, and there is a warning.
    pub fn put(&self, namespace: &str, key: &[u8], value: &[u8]) -> bool {
        let Some(dir) = &self.dir else { return false };
        let header = blob::header(namespace, key, value);
        let Some(header) = header.filter(|h| h.len() as u64 + value.len() as u64 <= self.max_bytes) else {
            self.lock().counters.dropped += 1;
            return false;
        };
        let written = self.write(dir, &blob::name(namespace, key), &header, value);
        let mut state = self.lock();
        match written {
            Ok(()) => {
                state.counters.stored += 1;
                let bytes = header.len() as u64 + value.len() as u64;
                state.bytes = state.bytes.saturating_add(bytes);
                state.since_scan = state.since_scan.saturating_add(bytes);
                if state.bytes > self.max_bytes || state.since_scan > self.max_bytes / SCAN_AFTER_PART {
                    self.make_room(dir, &mut state);
                }
                true
            }
            Err(e) => {
                state.counters.dropped += 1;
                state.warn(problem("write to", dir, &e));
                false
            }
        }
    }

    /// Removes a key.
    pub fn remove(&self, namespace: &str, key: &[u8]) {
        if let Some(dir) = &self.dir {
            self.remove_file(&dir.join(blob::name(namespace, key)));
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

    fn read(&self, path: &Path, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        let file = match read_file(path, self.max_bytes) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                self.lock().warn(problem("read", path, &e));
                return None;
            }
        };
        let value = file.and_then(|bytes| blob::value(bytes, namespace, key));
        if value.is_none() {
            self.lock().counters.corrupt += 1;
            self.remove_file(path);
        }
        value
    }

    fn remove_file(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => self.lock().warn(problem("remove", path, &e)),
            _ => {}
        }
    }

    fn write(&self, dir: &Path, name: &str, header: &[u8], value: &[u8]) -> io::Result<()> {
        let mut swept = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..ATTEMPTS {
            let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
            let temporary = dir.join(format!("{name}.{}-{:p}-{number}.tmp", std::process::id(), self));
            match write_file(&temporary, &dir.join(name), header, value) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => swept = e,
                Err(e) => {
                    // Best effort: a leftover is swept later.
                    let _ = fs::remove_file(&temporary);
                    return Err(e);
                }
            }
        }
        Err(swept)
    }

    /// Scans the directory: sweeps leftovers, and removes the values longest unused until the rest fits.
    fn make_room(&self, dir: &Path, state: &mut State) {
        let mut values = match scan(dir, &mut state.counters) {
            Ok(values) => values,
            Err(e) => return state.warn(problem("list", dir, &e)),
        };
        values.sort_unstable();
        state.bytes = values.iter().fold(0, |sum, v| sum.saturating_add(v.bytes));
        state.since_scan = 0;
        for value in values {
            if state.bytes <= self.max_bytes {
                break;
            }
            match fs::remove_file(dir.join(&value.name)) {
                Ok(()) => state.counters.evicted += 1,
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    state.warn(problem("remove from", dir, &e));
                    continue;
                }
            }
            state.bytes -= value.bytes;
        }
    }

    fn note_other_versions(&self, dir: &Path) {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
        let mut others: Vec<String> = names
            .filter_map(|name| name.into_string().ok())
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
            place: dir.display().to_string(),
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

/// Makes the directory of this version, for the user alone.
fn prepare(dir: &Path) -> io::Result<PathBuf> {
    let own = dir.join(version_name(FORMAT_VERSION));
    DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
    if fs::metadata(&own)?.permissions().mode() & 0o077 != 0 {
        // Fails if the directory is somebody else's, whose files are not to be trusted.
        fs::set_permissions(&own, Permissions::from_mode(0o700))?;
    }
    Ok(own)
}

/// The bytes of a file and a new time of use; `None` for what is no plain file or too large to be one of the cache.
fn read_file(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    // A pipe must not be opened: that would wait for a writer.
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > max_bytes {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    (&file).take(max_bytes).read_to_end(&mut out)?;
    // Without permission the value merely counts as older than it is.
    let _ = file.set_modified(SystemTime::now());
    Ok(Some(out))
}

/// Writes a file so that it appears whole or not at all, also if the machine stops. `NotFound` if the temporary file was
/// swept before it was locked; a locked one is not.
fn write_file(temporary: &Path, path: &Path, header: &[u8], value: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.lock()?;
    if file.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    file.write_all(header)?;
    file.write_all(value)?;
    // Times of use have the resolution of the clock, which is finer than that of the file system.
    file.set_modified(SystemTime::now())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// A value on disk; ordered by last use.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    used: SystemTime,
    name: String,
    bytes: u64,
}

/// All values; leftovers of killed writers are removed.
fn scan(dir: &Path, counters: &mut DiskCounters) -> io::Result<Vec<Stored>> {
    let mut values = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // What vanishes meanwhile was removed by another process.
        let Ok(metadata) = entry.metadata() else { continue };
        if name.ends_with(".tmp") {
            counters.swept += u64::from(metadata.is_file() && sweep(&entry.path()));
        } else if name.ends_with(".blob") && metadata.is_file() {
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            values.push(Stored { used, name, bytes: metadata.len() });
        }
    }
    Ok(values)
}

/// Removes a temporary file whose lock no living writer holds. The lock is kept meanwhile: a writer that gets it next
/// sees that its file is gone.
fn sweep(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok() && fs::remove_file(path).is_ok())
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
