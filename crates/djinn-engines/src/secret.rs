//! The secret of a folder of engines: 32 random bytes that only its user can read.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;

use djinn_cache::{Folder, Naming};
use rustix::rand::{GetRandomFlags, getrandom};

/// Name of the file.
const NAME: &str = "secret";

/// The secret of a folder, which is made once, also if several processes ask for the first time at the same time.
pub(crate) fn load(folder: &Folder) -> io::Result<[u8; 32]> {
    if let Some(secret) = read(folder)? {
        return Ok(secret);
    }
    match folder.write(NAME, &[&random()?], Naming::Once, true) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    read(folder)?.ok_or_else(|| ErrorKind::NotFound.into())
}

fn read(folder: &Folder) -> io::Result<Option<[u8; 32]>> {
    let file = match folder.read(NAME) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(fault("it is no plain file")),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(fault("it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(fault("others may have read or changed it"));
    }
    let mut bytes = Vec::new();
    file.take(33).read_to_end(&mut bytes)?;
    match bytes.try_into() {
        Ok(secret) => Ok(Some(secret)),
        Err(_) => Err(fault("it has not 32 bytes")),
    }
}

fn fault(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its file '{NAME}' is not to be trusted: {what}"))
}

fn random() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    let mut filled = 0;
    while filled < secret.len() {
        match getrandom(&mut secret[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(secret)
}
