//! The form of a file of the cache: a header that says what it is and whose, then the value.
//!
//! Layout, numbers little-endian: magic (8 bytes), format version (4), length of the namespace (4), of the key (4) and of
//! the value (8), BLAKE3 hash of all of this before it and all after it (32), namespace, key, value. With a secret, the
//! hash is a keyed one: a message authentication code, which only those who know the secret can make.

use std::fs::File;
use std::io::{self, Read};

/// Version of the form. Files of other versions lie in other directories and are never read.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"DJNCACHE";
const HASHED_HEADER: usize = 8 + 4 + 4 + 4 + 8;
const HEADER: usize = HASHED_HEADER + 32;
/// Bytes read and hashed at a time.
const CHUNK: usize = 128 << 10;

/// Name of the file of a key: the BLAKE3 hash of format version, namespace and key, in hexadecimal digits.
pub(crate) fn name(namespace: &str, key: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FORMAT_VERSION.to_le_bytes());
    hasher.update(&(namespace.len() as u64).to_le_bytes());
    hasher.update(namespace.as_bytes());
    hasher.update(key);
    format!("{}.blob", hasher.finalize().to_hex())
}

/// Who can make files that are believed: everybody, or those who know a secret.
pub(crate) type Secret = Option<[u8; 32]>;

/// Why a file is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is a directory, a symbolic link, a pipe or a device.
    NotAFile,
    /// It is larger than the whole cache.
    TooLarge,
    /// It is too short, or its header is not that of this key and length.
    Form,
    /// Its bytes are not those that were stored, or were stored with another secret.
    Hash,
}

/// Everything of a file before the value; `None` if a length does not fit.
pub(crate) fn header(secret: &Secret, namespace: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut out = hashed_header(namespace, key, value.len() as u64)?;
    let mut hasher = hasher(secret, &out, namespace, key);
    hasher.update(value);
    out.extend_from_slice(hasher.finalize().as_bytes());
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(key);
    Some(out)
}

/// Reads the value of a file of so many bytes, if the file is whole and of this namespace and key.
///
/// The value that is returned is the one that was hashed: it is read once, into memory that nobody else has.
pub(crate) fn read(
    file: &File,
    bytes: u64,
    secret: &Secret,
    namespace: &str,
    key: &[u8],
) -> io::Result<Result<Vec<u8>, Refusal>> {
    let start = HEADER + namespace.len() + key.len();
    let Some(length) = bytes.checked_sub(start as u64) else { return Ok(Err(Refusal::Form)) };
    let mut found = Vec::with_capacity(start);
    file.take(start as u64).read_to_end(&mut found)?;
    let Some(mut expected) = hashed_header(namespace, key, length) else { return Ok(Err(Refusal::Form)) };
    let mut hasher = hasher(secret, &expected, namespace, key);
    // The hash is checked when all is read; the rest must be there now, before memory is taken for the value.
    let hash = found.get(HASHED_HEADER..HEADER).and_then(|h| <[u8; 32]>::try_from(h).ok());
    let Some(hash) = hash else { return Ok(Err(Refusal::Form)) };
    expected.extend_from_slice(&hash);
    expected.extend_from_slice(namespace.as_bytes());
    expected.extend_from_slice(key);
    if found != expected {
        return Ok(Err(Refusal::Form));
    }
    let value = read_value(file, length, &mut hasher)?;
    Ok(match value {
        // Hashes are compared in constant time.
        Some(value) if hasher.finalize() == blake3::Hash::from_bytes(hash) => Ok(value),
        Some(_) => Err(Refusal::Hash),
        None => Err(Refusal::Form),
    })
}

/// So many bytes, hashed while they are still in the processor's cache; `None` if the file ends before.
fn read_value(mut file: &File, length: u64, hasher: &mut blake3::Hasher) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::new();
    let size = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    value.try_reserve_exact(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while value.len() < size {
        let old = value.len();
        value.resize(old + CHUNK.min(size - old), 0);
        match file.read_exact(&mut value[old..]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        hasher.update(&value[old..]);
    }
    Ok(Some(value))
}

fn hashed_header(namespace: &str, key: &[u8], length: u64) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + namespace.len() + key.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&u32::try_from(namespace.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&u32::try_from(key.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    Some(out)
}

fn hasher(secret: &Secret, header: &[u8], namespace: &str, key: &[u8]) -> blake3::Hasher {
    let mut hasher = secret.as_ref().map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed);
    hasher.update(header).update(namespace.as_bytes()).update(key);
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn value(bytes: &[u8], secret: &Secret, namespace: &str, key: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        std::io::Seek::rewind(&mut file).expect("rewinds");
        read(&file, bytes.len() as u64, secret, namespace, key).expect("reads")
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        for secret in [None, Some([7; 32])] {
            let mut file = header(&secret, "plan/1", b"key", b"value").expect("fits");
            file.extend_from_slice(b"value");
            assert_eq!(value(&file, &secret, "plan/1", b"key").as_deref(), Ok(&b"value"[..]));
            for bit in 0..8 * file.len() {
                let mut broken = file.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(value(&broken, &secret, "plan/1", b"key").is_err());
            }
            for cut in 0..file.len() {
                assert_eq!(value(&file[..cut], &secret, "plan/1", b"key"), Err(Refusal::Form));
            }
            file.push(0);
            assert_eq!(value(&file, &secret, "plan/1", b"key"), Err(Refusal::Form));
        }
    }

    #[test]
    fn namespaces_keys_and_secrets_are_kept_apart() {
        assert_ne!(name("ab", b"c"), name("a", b"bc"));
        let mut file = header(&Some([1; 32]), "ab", b"c", b"v").expect("fits");
        file.push(b'v');
        assert_eq!(value(&file, &Some([1; 32]), "a", b"bc"), Err(Refusal::Form));
        for other in [None, Some([2; 32])] {
            assert_eq!(value(&file, &other, "ab", b"c"), Err(Refusal::Hash));
        }
    }

    #[test]
    fn a_file_that_shrinks_or_claims_too_much_is_refused() {
        let mut file = tempfile::tempfile().expect("a file");
        let head = header(&None, "n", b"k", b"value").expect("fits");
        file.write_all(&head).expect("writes");
        std::io::Seek::rewind(&mut file).expect("rewinds");
        let claimed = head.len() as u64 + 5;
        assert_eq!(read(&file, claimed, &None, "n", b"k").expect("reads"), Err(Refusal::Form));
    }
}
