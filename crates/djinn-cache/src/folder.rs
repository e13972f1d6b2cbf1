//! A directory that is held open: names are looked up in that very directory, whatever becomes of its path, and no
//! symbolic link in it is followed.
//!
//! A file appears whole or not at all: it is written under a temporary name, which its writer keeps locked (`flock`,
//! which the system releases when a process dies, however it dies), and is then renamed or linked. Temporary files that
//! nobody holds are leftovers of killed writers and may be swept.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// What races with other processes is tried this many times.
const ATTEMPTS: usize = 1000;

/// The ending of names of files that are being written.
const TEMPORARY: &str = ".tmp";

/// How a file that [`Folder::write`] wrote gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// It takes the place of what had the name.
    Replace,
    /// What has the name keeps it, and the write fails with [`io::ErrorKind::AlreadyExists`].
    Once,
}

/// A directory that is held open.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// Something in a [`Folder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The time of its modification.
    pub modified: SystemTime,
    /// Whether it is a plain file, not a directory, link, pipe or device.
    pub is_file: bool,
}

impl Folder {
    /// Opens a directory, which is made for the user alone if it is not there.
    pub fn open(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let fd = rustix::fs::open(path, directory_flags() - OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Folder { fd, path: path.to_owned() })
    }

    /// Opens a directory whose files are to be trusted. It is made for the user alone if it is not there; one that is a
    /// symbolic link, belongs to another user or may be written to by others is refused.
    pub fn open_private(path: &Path) -> io::Result<Folder> {
        // A trailing slash would make the system follow a link.
        let path: PathBuf = path.components().collect();
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Folder { fd: open_directory(CWD, &path)?, path }.private()
    }

    /// A directory of this one, by the rules of [`Folder::open_private`].
    pub fn child(&self, name: &str) -> io::Result<Folder> {
        self.make_child(name)?.private()
    }

    /// A directory of this one. One that others may enter is closed to them; that fails if it is somebody else's.
    pub(crate) fn closed_child(&self, name: &str) -> io::Result<Folder> {
        let child = self.make_child(name)?;
        child.close_to_others()?;
        Ok(child)
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a plain file to read it; `None` for anything else that has the name. Does not wait, whatever it is.
    pub fn read(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, plain(name)?, flags, Mode::empty()) {
            Ok(fd) => plain_file(fd),
            // A link; a socket or a device without a driver.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether something has the name.
    pub fn contains(&self, name: &str) -> bool {
        plain(name).is_ok_and(|n| rustix::fs::statat(&self.fd, n, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Writes a file of these parts, readable by the user alone. With `sync`, it is all there also after a power
    /// failure; without, after the death of the process only.
    pub fn write(&self, name: &str, parts: &[&[u8]], naming: Naming, sync: bool) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        plain(name)?;
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temporary = format!("{name}.{}-{number}{TEMPORARY}", std::process::id());
            // Processes with the same number live in different containers, or one of them is dead.
            let file = match self.create(&temporary) {
                Ok(file) => file,
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(e.into()),
            };
            match self.fill(file, &temporary, name, parts, naming, sync) {
                // It was swept between its creation and its locking, before anything was written.
                Err(e) if e.kind() == io::ErrorKind::NotFound => last = e,
                result => {
                    if result.is_err() || naming == Naming::Once {
                        // Best effort: a leftover is swept later.
                        let _ = self.remove(&temporary);
                    }
                    return result;
                }
            }
        }
        Err(last)
    }

    /// Removes a file, or an empty directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, plain(name)?, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?),
            result => Ok(result?),
        }
    }

    /// What is in it, in no particular order. Names that are no UTF-8 are left out, and what vanishes meanwhile.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Ok(stat) = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if name == "." || name == ".." {
                continue;
            }
            entries.push(Entry {
                name: name.to_owned(),
                bytes: u64::try_from(stat.st_size).unwrap_or(0),
                modified: time(stat.st_mtime, u64::from(stat.st_mtime_nsec as u32)),
                is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            });
        }
        Ok(entries)
    }

    /// Removes a file whose lock nobody holds: a leftover of a killed writer. The lock is kept meanwhile: a writer that
    /// gets it next sees that its file is gone.
    pub fn sweep(&self, name: &str) -> bool {
        let Ok(Some(file)) = self.read(name) else { return false };
        file.try_lock().is_ok() && self.same(&file, name) && self.remove(name).is_ok()
    }

    /// The lock of a name: waits until no other thread or process holds it. Whoever dies gives it back.
    pub fn lock(&self, name: &str) -> io::Result<FolderLock<'_>> {
        self.locked(name, |file| {
            loop {
                match file.lock() {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    result => return result.map(|()| true),
                }
            }
        })
        .and_then(|lock| lock.ok_or_else(|| io::ErrorKind::WouldBlock.into()))
    }

    /// The lock of a name, if no other thread or process holds it.
    pub fn try_lock(&self, name: &str) -> io::Result<Option<FolderLock<'_>>> {
        self.locked(name, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        })
    }

    fn locked(
        &self,
        name: &str,
        take: impl Fn(&File) -> io::Result<bool>,
    ) -> io::Result<Option<FolderLock<'_>>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            let fd = rustix::fs::openat(&self.fd, plain(name)?, flags, Mode::RUSR | Mode::WUSR);
            let file = match fd {
                Ok(fd) => plain_file(fd)?,
                Err(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => None,
                Err(e) => return Err(e.into()),
            };
            let Some(file) = file else {
                // What is no plain file is nobody's lock.
                self.remove(name)?;
                continue;
            };
            if !take(&file)? {
                return Ok(None);
            }
            // Whoever held it before removed it when done: then the name is free, or another file's.
            if self.same(&file, name) {
                return Ok(Some(FolderLock { folder: self, name: name.to_owned(), _file: file }));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Whether a file still has its name.
    fn same(&self, file: &File, name: &str) -> bool {
        let named = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let (Ok(named), Ok(held)) = (named, file.metadata()) else { return false };
        (named.st_dev, named.st_ino) == (held.dev(), held.ino())
    }

    fn create(&self, name: &str) -> rustix::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn fill(
        &self,
        mut file: File,
        temporary: &str,
        name: &str,
        parts: &[&[u8]],
        naming: Naming,
        sync: bool,
    ) -> io::Result<()> {
        // Where files cannot be locked, none is ever swept.
        let _ = file.lock();
        if file.metadata()?.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        for part in parts {
            file.write_all(part)?;
        }
        // Times of use have the resolution of the clock, which is finer than that of the file system.
        file.set_modified(SystemTime::now())?;
        if sync {
            file.sync_all()?;
        }
        match naming {
            Naming::Replace => rustix::fs::renameat(&self.fd, temporary, &self.fd, name)?,
            Naming::Once => rustix::fs::linkat(&self.fd, temporary, &self.fd, name, AtFlags::empty())?,
        }
        if sync {
            rustix::fs::fsync(&self.fd)?;
        }
        Ok(())
    }

    fn make_child(&self, name: &str) -> io::Result<Folder> {
        match rustix::fs::mkdirat(&self.fd, plain(name)?, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A read-only directory may have it already.
            Err(_) if self.contains(name) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(Folder { fd: open_directory(&self.fd, Path::new(name))?, path: self.path.join(name) })
    }

    fn close_to_others(&self) -> io::Result<()> {
        if rustix::fs::fstat(&self.fd)?.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&self.fd, Mode::RWXU)?;
        }
        Ok(())
    }

    fn private(self) -> io::Result<Folder> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let me = rustix::process::geteuid().as_raw();
        let fault = if stat.st_uid != me {
            format!("it belongs to user {}, not to user {me}", stat.st_uid)
        } else if stat.st_mode & 0o022 != 0 {
            format!("other users may write to it (mode {:o})", stat.st_mode & 0o7777)
        } else {
            return Ok(self);
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, fault))
    }
}

/// The lock of a name in a [`Folder`], until it is dropped.
#[derive(Debug)]
pub struct FolderLock<'a> {
    folder: &'a Folder,
    name: String,
    _file: File,
}

impl Drop for FolderLock<'_> {
    fn drop(&mut self) {
        // While the lock is held: whoever waits for it sees that the file lost its name. A leftover does no harm.
        let _ = self.folder.remove(&self.name);
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open_directory(at: impl std::os::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::openat(at, path, directory_flags(), Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let fault = "it is a symbolic link or no directory";
            Err(io::Error::new(io::ErrorKind::NotADirectory, fault))
        }
        Err(e) => Err(e.into()),
    }
}

/// A name without a path.
fn plain(name: &str) -> io::Result<&str> {
    let only = Path::new(name).file_name() == Some(OsStr::new(name));
    if only { Ok(name) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn plain_file(fd: OwnedFd) -> io::Result<Option<File>> {
    let file = File::from(fd);
    Ok(file.metadata()?.is_file().then_some(file))
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) + Duration::from_nanos(nanoseconds);
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}
