//! The form of a file of the cache: a header that says what it is and whose, then the value.
//!
//! Layout, numbers little-endian: magic (8 bytes), format version (4), length of the namespace (4), of the key (4) and of
//! the value (8), BLAKE3 hash of all of this before it and all after it (32), namespace, key, value.

/// Version of the form. Files of other versions lie in other directories and are never read.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"DJNCACHE";
const HASHED_HEADER: usize = 8 + 4 + 4 + 4 + 8;
const HEADER: usize = HASHED_HEADER + 32;

/// Name of the file of a key: the BLAKE3 hash of format version, namespace and key, in hexadecimal digits.
pub(crate) fn name(namespace: &str, key: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FORMAT_VERSION.to_le_bytes());
    hasher.update(&(namespace.len() as u64).to_le_bytes());
    hasher.update(namespace.as_bytes());
    hasher.update(key);
    format!("{}.blob", hasher.finalize().to_hex())
}

/// Everything of a file before the value; `None` if a length does not fit.
pub(crate) fn header(namespace: &str, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + namespace.len() + key.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&u32::try_from(namespace.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&u32::try_from(key.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    let hash = checksum(&out, &[namespace.as_bytes(), key, value]);
    out.extend_from_slice(&hash);
    out.extend_from_slice(namespace.as_bytes());
    out.extend_from_slice(key);
    Some(out)
}

/// The value in a file, if the file is whole and of this namespace and key.
pub(crate) fn value(mut file: Vec<u8>, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
    let start = HEADER + namespace.len() + key.len();
    let value = file.get(start..)?;
    // Whoever stored this namespace, key and value would have written this header.
    if header(namespace, key, value)? != file[..start] {
        return None;
    }
    file.drain(..start);
    Some(file)
}

fn checksum(header: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let mut file = header("plan/1", b"key", b"value").expect("fits");
        file.extend_from_slice(b"value");
        assert_eq!(value(file.clone(), "plan/1", b"key").as_deref(), Some(&b"value"[..]));
        for bit in 0..8 * file.len() {
            let mut broken = file.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(value(broken, "plan/1", b"key"), None);
        }
        for cut in 0..file.len() {
            assert_eq!(value(file[..cut].to_vec(), "plan/1", b"key"), None);
        }
        file.push(0);
        assert_eq!(value(file, "plan/1", b"key"), None);
    }

    #[test]
    fn namespaces_and_keys_are_kept_apart() {
        assert_ne!(name("ab", b"c"), name("a", b"bc"));
        let mut file = header("ab", b"c", b"v").expect("fits");
        file.push(b'v');
        assert_eq!(value(file, "a", b"bc"), None);
    }
}
