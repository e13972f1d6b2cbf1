//! A reader for zip archives whose members are stored without compression, as torch writes them.
//!
//! Contract: names are relative and stay inside the archive, members do not overlap, and every window lies inside the
//! file. Checksums are verified by [`Archive::text`] only; payloads are handed out without reading them.

use djinn_diag::{Diagnostic, Result, input, unsupported};
use djinn_ir::data::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file in memory, shared with the weights that point into it.
pub(crate) type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Members of one archive, at most.
const MAX_MEMBERS: u64 = 1 << 22;

/// An opened archive.
pub(crate) struct Archive {
    bytes: Shared,
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    offset: usize,
    len: usize,
    crc: u32,
}

fn damaged(what: impl Into<String>) -> Box<Diagnostic> {
    input("pt2.zip", what).help("the archive is damaged or not a .pt2 file: export or copy it again")
}

fn u16_at(b: &[u8], at: usize) -> Result<u64> {
    let bytes = b.get(at..at.saturating_add(2)).ok_or_else(|| damaged("a zip record is cut off"))?;
    Ok(bytes.iter().rev().fold(0, |v, x| v << 8 | u64::from(*x)))
}

fn u32_at(b: &[u8], at: usize) -> Result<u64> {
    let bytes = b.get(at..at.saturating_add(4)).ok_or_else(|| damaged("a zip record is cut off"))?;
    Ok(bytes.iter().rev().fold(0, |v, x| v << 8 | u64::from(*x)))
}

fn u64_at(b: &[u8], at: usize) -> Result<u64> {
    let bytes = b.get(at..at.saturating_add(8)).ok_or_else(|| damaged("a zip record is cut off"))?;
    Ok(bytes.iter().rev().fold(0, |v, x| v << 8 | u64::from(*x)))
}

fn to_usize(v: u64) -> Result<usize> {
    usize::try_from(v).map_err(|_| damaged("a zip record points beyond the end of the file"))
}

impl Archive {
    /// Reads the central directory.
    ///
    /// # Errors
    /// Whatever breaks the contract of this module; compressed and encrypted members are refused.
    pub(crate) fn open(bytes: Shared) -> Result<Archive> {
        let data = (*bytes).as_ref();
        let (count, start, end) = directory(data)?;
        let mut members = BTreeMap::new();
        let mut spans = Vec::new();
        let mut at = start;
        for _ in 0..count {
            let (name, member, header, next) = entry(data, at, end)?;
            at = next;
            if name.ends_with('/') {
                continue;
            }
            spans.push((header, member.offset + member.len));
            if members.insert(name.clone(), member).is_some() {
                return Err(damaged(format!("the archive has two members named '{name}'")));
            }
        }
        spans.sort_unstable();
        if spans.windows(2).any(|w| w[1].0 < w[0].1) || spans.last().is_some_and(|s| s.1 > start) {
            return Err(damaged("members of the archive overlap"));
        }
        Ok(Archive { bytes, members })
    }

    /// Names of all members, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The bytes of a member, unread; `None` if there is no such member.
    pub(crate) fn window(&self, name: &str) -> Option<Bytes> {
        let m = self.members.get(name)?;
        Bytes::window(Arc::clone(&self.bytes), m.offset, m.len)
    }

    /// A window of `len` bytes at `offset` of a member; `None` if it reaches beyond the member.
    pub(crate) fn sub_window(&self, name: &str, offset: usize, len: usize) -> Option<Bytes> {
        let m = self.members.get(name)?;
        (offset.checked_add(len)? <= m.len).then_some(())?;
        Bytes::window(Arc::clone(&self.bytes), m.offset + offset, len)
    }

    /// The bytes of a member after checking their checksum; `None` if there is no such member.
    ///
    /// # Errors
    /// A wrong checksum.
    pub(crate) fn text(&self, name: &str) -> Result<Option<Bytes>> {
        let (Some(window), Some(member)) = (self.window(name), self.members.get(name)) else {
            return Ok(None);
        };
        let mut crc = flate2::Crc::new();
        crc.update(window.as_slice());
        if crc.sum() != member.crc {
            return Err(damaged(format!("the checksum of '{name}' is wrong")));
        }
        Ok(Some(window))
    }
}

/// Number of members, and start and end of the central directory.
fn directory(data: &[u8]) -> Result<(u64, usize, usize)> {
    const END: &[u8] = b"PK\x05\x06";
    let lowest = data.len().saturating_sub(22 + 0xFFFF);
    let end = (lowest..=data.len().saturating_sub(22))
        .rev()
        .find(|at| data[*at..].starts_with(END) && data.len() >= at + 22)
        .ok_or_else(|| damaged("the file has no zip directory"))?;
    let (mut count, mut size, mut start) =
        (u16_at(data, end + 10)?, u32_at(data, end + 12)?, u32_at(data, end + 16)?);
    let mut limit = end;
    if count == 0xFFFF || size == 0xFFFF_FFFF || start == 0xFFFF_FFFF {
        let locator = end.checked_sub(20).filter(|at| data[*at..].starts_with(b"PK\x06\x07"));
        let locator = locator.ok_or_else(|| damaged("the zip64 locator is missing"))?;
        let record = to_usize(u64_at(data, locator + 8)?)?;
        if !data.get(record..).is_some_and(|d| d.starts_with(b"PK\x06\x06")) {
            return Err(damaged("the zip64 directory record is missing"));
        }
        (count, size, start) =
            (u64_at(data, record + 32)?, u64_at(data, record + 40)?, u64_at(data, record + 48)?);
        limit = record;
    }
    let (size, start) = (to_usize(size)?, to_usize(start)?);
    let stop = start.checked_add(size).filter(|stop| *stop <= limit);
    let stop = stop.ok_or_else(|| damaged("the zip directory reaches beyond the end of the file"))?;
    if count > MAX_MEMBERS || count.saturating_mul(46) > size as u64 {
        return Err(damaged(format!("the zip directory is too small for {count} members")));
    }
    Ok((count, start, stop))
}

/// Name, place, header position and next directory position of one member.
fn entry(data: &[u8], at: usize, end: usize) -> Result<(String, Member, usize, usize)> {
    let directory = &data[..end];
    if !directory.get(at..).is_some_and(|d| d.starts_with(b"PK\x01\x02")) {
        return Err(damaged("an entry of the zip directory is missing"));
    }
    let (flags, method) = (u16_at(directory, at + 8)?, u16_at(directory, at + 10)?);
    let crc = u32_at(directory, at + 16)? as u32;
    let (name_len, extra_len, comment_len) = (
        to_usize(u16_at(directory, at + 28)?)?,
        to_usize(u16_at(directory, at + 30)?)?,
        to_usize(u16_at(directory, at + 32)?)?,
    );
    let name_bytes =
        directory.get(at + 46..at + 46 + name_len).ok_or_else(|| damaged("a member's name is cut off"))?;
    let name =
        std::str::from_utf8(name_bytes).map_err(|_| damaged("a member's name is not UTF-8"))?.to_string();
    check_name(&name)?;
    if flags & 1 != 0 {
        return Err(
            unsupported("pt2.zip", format!("member '{name}' is encrypted")).help("decrypt the archive")
        );
    }
    if method != 0 {
        return Err(unsupported("pt2.zip", format!("member '{name}' is compressed (method {method})"))
            .help("torch.export.save stores members uncompressed; pack the archive again with `zip -0`"));
    }
    let extra_at = at + 46 + name_len;
    let extra =
        directory.get(extra_at..extra_at + extra_len).ok_or_else(|| damaged("a zip record is cut off"))?;
    let sizes = [u32_at(directory, at + 24)?, u32_at(directory, at + 20)?, u32_at(directory, at + 42)?];
    let [len, packed, header] = zip64(sizes, extra)?;
    if len != packed {
        return Err(damaged(format!("the two sizes of member '{name}' differ")));
    }
    let (header, len) = (to_usize(header)?, to_usize(len)?);
    let local = data.get(header..).filter(|d| d.starts_with(b"PK\x03\x04"));
    let local = local.ok_or_else(|| damaged(format!("the header of member '{name}' is missing")))?;
    let skip = to_usize(30 + u16_at(local, 26)? + u16_at(local, 28)?)?;
    let offset = header + skip;
    if offset.checked_add(len).is_none_or(|stop| stop > data.len()) {
        return Err(damaged(format!("member '{name}' reaches beyond the end of the file")));
    }
    Ok((name, Member { offset, len, crc }, header, extra_at + extra_len + comment_len))
}

/// Replaces the sizes (uncompressed, compressed, header position) that are all ones by those of the zip64 field.
fn zip64(mut sizes: [u64; 3], extra: &[u8]) -> Result<[u64; 3]> {
    if !sizes.contains(&0xFFFF_FFFF) {
        return Ok(sizes);
    }
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (id, len) = (u16_at(extra, at)?, to_usize(u16_at(extra, at + 2)?)?);
        let field = extra.get(at + 4..at + 4 + len).ok_or_else(|| damaged("a zip64 field is cut off"))?;
        if id == 1 {
            let wide = sizes.iter_mut().filter(|s| **s == 0xFFFF_FFFF);
            for (i, size) in wide.enumerate() {
                *size = u64_at(field, 8 * i)?;
            }
            return Ok(sizes);
        }
        at += 4 + len;
    }
    Err(damaged("a zip64 field is missing"))
}

fn check_name(name: &str) -> Result<()> {
    let escapes = name.starts_with('/')
        || name.contains(['\\', '\0', ':'])
        || name.split('/').any(|part| part == ".." || part == ".");
    if escapes || name.is_empty() {
        return Err(damaged(format!("the member name {name:?} leaves the archive")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A zip archive with these stored members.
    pub(crate) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in members {
            let mut crc = flate2::Crc::new();
            crc.update(data);
            let header = out.len() as u32;
            let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            common.extend(crc.sum().to_le_bytes());
            common.extend((data.len() as u32).to_le_bytes());
            common.extend((data.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend([0, 0]);
            out.extend(name.as_bytes());
            out.extend(*data);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&common);
            directory.extend([0; 12]);
            directory.extend(header.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = out.len() as u32;
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    fn open(bytes: Vec<u8>) -> Result<Archive> {
        Archive::open(Arc::new(bytes))
    }

    fn code(bytes: Vec<u8>) -> String {
        match open(bytes) {
            Ok(_) => "ok".into(),
            Err(e) => format!("{} {}", e.culprit.label(), e.message),
        }
    }

    #[test]
    fn members_are_windows() {
        let a = open(zip(&[("m/a", b"hello"), ("m/b", b"")])).expect("archive");
        assert_eq!(a.names().collect::<Vec<_>>(), ["m/a", "m/b"]);
        assert_eq!(a.text("m/a").expect("checksum").map(|b| b.as_slice().to_vec()), Some(b"hello".to_vec()));
        assert_eq!(a.sub_window("m/a", 1, 3).map(|b| b.as_slice().to_vec()), Some(b"ell".to_vec()));
        assert!(a.sub_window("m/a", 3, 3).is_none() && a.window("m/c").is_none());
    }

    #[test]
    fn hostile_archives_are_refused() {
        assert!(code(Vec::new()).contains("no zip directory"));
        assert!(code(zip(&[("../x", b"")])).contains("leaves the archive"));
        assert!(code(zip(&[("/x", b"")])).contains("leaves the archive"));
        assert!(code(zip(&[("x", b""), ("x", b"")])).contains("two members"));
        let good = zip(&[("abc", b"hello")]);
        let mut compressed = good.clone();
        let at = good.windows(4).position(|w| w == b"PK\x01\x02").expect("directory");
        compressed[at + 10] = 8;
        assert!(code(compressed).starts_with("unsupported member 'abc' is compressed"));
        let mut encrypted = good.clone();
        encrypted[at + 8] = 1;
        assert!(code(encrypted).contains("encrypted"));
        let mut long = good.clone();
        (long[at + 20], long[at + 24]) = (255, 255);
        assert!(code(long).contains("beyond the end") || good.len() > 300);
        let mut flipped = good.clone();
        let payload = good.windows(5).position(|w| w == b"hello").expect("payload");
        flipped[payload] ^= 1;
        let archive = open(flipped).expect("the directory is intact");
        assert!(archive.text("abc").is_err());
    }

    /// The archive with its first member's sizes and its directory described by zip64 records.
    fn as_zip64(plain: &[u8]) -> Vec<u8> {
        let at = plain.windows(4).position(|w| w == b"PK\x01\x02").expect("directory");
        let end = plain.len() - 22;
        let mut entry = plain[at..end].to_vec();
        let size = entry[24..28].to_vec();
        let mut field = vec![1, 0, 24, 0];
        for part in [&size, &size, &entry[42..46].to_vec()] {
            field.extend_from_slice(part);
            field.extend([0; 4]);
        }
        entry[20..28].fill(0xFF);
        entry[42..46].fill(0xFF);
        entry[30] = 28;
        let mut out = [&plain[..at], &entry, &field].concat();
        let record = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend([0; 28]);
        out.extend(1u64.to_le_bytes());
        out.extend((record - at as u64).to_le_bytes());
        out.extend((at as u64).to_le_bytes());
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(record.to_le_bytes());
        out.extend([1, 0, 0, 0]);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([0xFF; 12]);
        out.extend([0, 0]);
        out
    }

    #[test]
    fn zip64_records_are_read() {
        let bytes = as_zip64(&zip(&[("m/a", b"hello")]));
        let a = open(bytes.clone()).expect("archive");
        assert_eq!(a.text("m/a").expect("checksum").map(|b| b.as_slice().to_vec()), Some(b"hello".to_vec()));
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            drop(open(bad));
        }
    }

    #[test]
    fn overlapping_members_are_refused() {
        let mut bytes = zip(&[("a", b"0123456789"), ("b", b"0123456789")]);
        let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").expect("directory");
        // The second entry now points at the first header.
        bytes[at + 42..at + 46].copy_from_slice(&[0; 4]);
        assert!(code(bytes).contains("overlap"));
    }

    #[test]
    fn no_truncation_or_bit_flip_panics() {
        let good = zip(&[("m/a", b"hello"), ("m/b", b"world")]);
        for n in 0..good.len() {
            drop(open(good[..n].to_vec()));
        }
        for i in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[i / 8] ^= 1 << (i % 8);
            if let Ok(a) = open(bad) {
                drop(a.text("m/a"));
            }
        }
    }
}
