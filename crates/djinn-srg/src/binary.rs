//! The binary form of a program: a JSON header and the bytes of the weights, aligned so that a memory map can be used
//! in place.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "DJINNSRG"
//!      8      4  version, little-endian
//!     12      4  zero
//!     16      8  length of the header, little-endian
//!     24      8  length of the file, little-endian
//!     32     16  content hash of the header (as of a ui8 vector)
//!     48     16  zero
//!     64         header: the JSON form in one line; `data` of a weight is {"offset": …, "length": …}
//!      …         zeros up to a multiple of 64; offsets count from here
//!      …         weights, each at a multiple of 64, each followed by zeros up to one; equal ones stand there once
//! ```
//!
//! Every byte of a file is checked: a flipped bit or a cut gives a diagnostic (`srg.binary`).

use crate::Srg;
use crate::json::{check_hash, read_with, to_value};
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_ir::data::Bytes;
use djinn_ir::{ContentHash, DType, TensorData, TensorType};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"DJINNSRG";
const VERSION: u32 = 1;
/// Length of what precedes the header.
const PREFIX: usize = 64;
/// Alignment of the payload and of every weight.
const ALIGN: usize = 64;
/// Bytes of a header, at most.
const MAX_HEADER: usize = 1 << 28;

/// Whether reading compares the content of weights with their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentCheck {
    /// Hash every weight: touches every byte of the file.
    #[default]
    Hash,
    /// Take the hashes of the file on trust: touches only the header.
    Trust,
}

/// Does the file start like one in this form?
pub fn is_binary(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

fn wrong(message: impl Into<String>) -> Box<Diagnostic> {
    input("srg.binary", message)
}

fn hash_of(bytes: &[u8]) -> Option<ContentHash> {
    TensorData::new(DType::U8, vec![bytes.len()], bytes.to_vec()).map(|data| data.content_hash())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// The program as bytes.
///
/// # Errors
/// `srg.binary` if the header would be longer than 256 MiB.
pub fn write(srg: &Srg) -> Result<Vec<u8>> {
    let payload = RefCell::new(Vec::new());
    let offsets: RefCell<BTreeMap<ContentHash, usize>> = RefCell::default();
    let header = to_value(srg, &|hash, data| {
        let mut payload = payload.borrow_mut();
        let offset = *offsets.borrow_mut().entry(*hash).or_insert_with(|| {
            let offset = payload.len();
            payload.extend_from_slice(data.bytes());
            pad(&mut payload);
            offset
        });
        Some(serde_json::json!({ "length": data.bytes().len(), "offset": offset }))
    });
    let header = header.to_string().into_bytes();
    let payload = payload.into_inner();
    let hash = hash_of(&header).filter(|_| header.len() <= MAX_HEADER);
    let hash = hash.ok_or_else(|| wrong("the program has more than 256 MiB without its weights"))?;
    let total = (PREFIX + header.len()).next_multiple_of(ALIGN) + payload.len();
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(header.len() as u64).to_le_bytes());
    out.extend_from_slice(&(total as u64).to_le_bytes());
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&header);
    pad(&mut out);
    out.extend_from_slice(&payload);
    Ok(out)
}

/// `N` bytes from `at` on; zeros beyond the end, which the caller has excluded.
fn array<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    file.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// A length field, if it is at most `limit`.
fn length(file: &[u8], at: usize, limit: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(array(file, at))).ok().filter(|n| *n <= limit)
}

/// The checked header and where the payload starts.
fn header(file: &[u8]) -> Result<(&str, usize)> {
    if !is_binary(file) {
        return Err(wrong("the file does not start with DJINNSRG"));
    }
    if file.len() < PREFIX {
        return Err(wrong("the file ends within its first 64 bytes"));
    }
    let version = u32::from_le_bytes(array(file, 8));
    if version != VERSION {
        let error = wrong(format!("version {version} is not known"));
        return Err(error.help(format!("this Djinn reads version {VERSION}")));
    }
    if array::<4>(file, 12) != [0; 4] || array::<16>(file, 48) != [0; 16] {
        return Err(wrong("reserved bytes are not zero"));
    }
    if length(file, 24, usize::MAX) != Some(file.len()) {
        return Err(wrong("the file is cut off or has something after its end"));
    }
    let len = length(file, 16, MAX_HEADER).ok_or_else(|| wrong("the header is longer than 256 MiB"))?;
    let start = (PREFIX + len).next_multiple_of(ALIGN);
    let (Some(bytes), Some(rest)) = (file.get(PREFIX..PREFIX + len), file.get(PREFIX + len..start)) else {
        return Err(wrong("the header is longer than the file"));
    };
    if hash_of(bytes) != Some(ContentHash(array(file, 32))) {
        return Err(wrong("the header is damaged: its hash is another"));
    }
    if rest.iter().any(|b| *b != 0) {
        return Err(wrong("bytes after the header are not zero"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("the header is no UTF-8"))?;
    Ok((text, start))
}

/// Reads a program; weights are windows of `file`.
///
/// # Errors
/// `srg.binary` for damage, and those of [`crate::json::read`] for the header, with its path.
pub fn read(file: Arc<dyn AsRef<[u8]> + Send + Sync>, check: ContentCheck) -> Result<Srg> {
    let bytes = (*file).as_ref();
    let (text, start) = header(bytes)?;
    let end = RefCell::new(start);
    let srg = read_with(text, &|value, ty, hash| {
        let (data, after) = weight(&file, start, value, ty)?;
        if check == ContentCheck::Hash {
            check_hash(&data, hash)?;
        }
        let mut end = end.borrow_mut();
        *end = after.max(*end);
        Ok(data)
    })
    .at(|| "header")?;
    if *end.borrow() != bytes.len() {
        return Err(wrong("there are bytes that belong to no weight"));
    }
    Ok(srg)
}

/// One weight and where the next one may start.
fn weight(
    file: &Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    value: &Value,
    ty: &TensorType,
) -> Result<(TensorData, usize)> {
    let field = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let (Some(offset), Some(len), Some(2)) =
        (field("offset"), field("length"), value.as_object().map(serde_json::Map::len))
    else {
        return Err(wrong("expected {\"offset\": …, \"length\": …}"));
    };
    if offset % ALIGN != 0 {
        return Err(wrong(format!("offset {offset} is no multiple of 64")));
    }
    let beyond = || wrong("the weight reaches beyond the end of the file");
    let from = start.checked_add(offset).ok_or_else(beyond)?;
    let window = Bytes::window(Arc::clone(file), from, len).ok_or_else(beyond)?;
    let to = from + len;
    let after = to.checked_next_multiple_of(ALIGN).ok_or_else(beyond)?;
    let padding = (**file).as_ref().get(to..after).ok_or_else(beyond)?;
    if padding.iter().any(|b| *b != 0) {
        return Err(wrong("bytes after the weight are not zero"));
    }
    let shape = ty.const_shape().ok_or_else(|| wrong(format!("{ty} has no constant sizes")))?;
    let data = TensorData::new(ty.dtype, shape, window)
        .ok_or_else(|| wrong(format!("{len} bytes do not make a {ty}")))?;
    Ok((data, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::{same_text, sample};

    fn reading(bytes: Vec<u8>) -> Result<Srg> {
        read(Arc::new(bytes), ContentCheck::Hash)
    }

    #[test]
    fn files_round_trip_and_share_tied_weights() {
        let srg = sample();
        let file = write(&srg).expect("small");
        assert!(is_binary(&file) && file.len().is_multiple_of(64));
        let again = reading(file.clone()).unwrap_or_else(|e| panic!("{e}"));
        same_text(&srg, &again);
        assert_eq!(write(&again), Ok(file.clone()));
        let (_, start) = header(&file).expect("good");
        assert_eq!(file.len() - start, 64, "w and its twin stand there once");
        let any = crate::read(Arc::new(file)).expect("recognised");
        same_text(&srg, &any);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let file = write(&sample()).expect("small");
        for i in 0..file.len() {
            let mut flipped = file.clone();
            flipped[i] ^= 1 << (i % 8);
            assert!(reading(flipped).is_err(), "byte {i}");
            assert!(reading(file[..i].to_vec()).is_err(), "cut at {i}");
        }
        let mut longer = file;
        longer.push(0);
        assert!(reading(longer).is_err());
    }

    #[test]
    fn wrong_offsets_are_refused() {
        let good = write(&sample()).expect("small");
        let (text, start) = header(&good).expect("good");
        for (from, to) in [
            ("\"offset\":0", "\"offset\":8"),
            ("\"offset\":0", "\"offset\":18446744073709551552"),
            ("\"length\":16", "\"length\":17"),
            ("\"length\":16", "\"length\":18446744073709551615"),
            ("\"offset\":0", "\"ofset\":0"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let e = reading(with_header(&changed, &good[start..])).expect_err(to);
            assert_eq!((e.code.as_str(), e.place[0].as_str()), ("srg.binary", "header"), "{e}");
            assert!(e.place[1].starts_with("$.weights["), "{e}");
        }
    }

    /// A file with this header, whose hash and lengths are right.
    fn with_header(header: &str, payload: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend([0; 4]);
        let total = (PREFIX + header.len()).next_multiple_of(ALIGN) + payload.len();
        out.extend((header.len() as u64).to_le_bytes());
        out.extend((total as u64).to_le_bytes());
        out.extend(hash_of(header.as_bytes()).expect("hash").0);
        out.extend([0; 16]);
        out.extend(header.as_bytes());
        pad(&mut out);
        out.extend(payload);
        out
    }
}
