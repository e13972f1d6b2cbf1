//! Weights that stay in the files of their model: a bundle names the file, its hash, and where each weight is in it.
//!
//! The places are found by content, so that any file serves that holds the bytes as they are: `.pt2`, ONNX with or without
//! external data, safetensors. What is in none of the files (weights that passes have computed) is packed as ever.

use super::container;
use super::manifest::FileInfo;
use super::weights::insert;
use djinn_diag::{Context, Diagnostic, Result, input};
use djinn_ir::data::Bytes;
use djinn_ir::{DType, Module, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The part of a bundle that says where its weights are.
pub(super) const REFERENCES: &str = "weights.json";
/// Version of [`References`].
const VERSION: u32 = 1;
/// Bytes by whose hash a weight is looked for; smaller weights are packed.
const WINDOW: usize = 64;
/// Multiplier of the rolling hash: an odd number without structure (Knuth, TAOCP 3, section 6.4: the golden ratio).
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Comparisons of a search may read so many times the bytes of file and weights; what is not found by then is packed.
const MAX_COMPARED: usize = 8;
/// Bits of the filter that most positions fail.
const FILTER_BITS: u32 = 16;

/// Where weights are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct References {
    version: u32,
    files: Vec<Named>,
    weights: BTreeMap<String, Place>,
}

/// A file outside the bundle.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Relative to the folder in which the bundle is.
    name: String,
    /// What the file must be.
    content: FileInfo,
}

/// A weight in one of the files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    file: usize,
    offset: u64,
    bytes: u64,
    dtype: String,
    shape: Vec<usize>,
}

/// Finds the weights of a module in files. Gives the part of the bundle, if any is there, and the names of those that are.
pub(super) fn find(
    module: &Module,
    files: &[PathBuf],
    parent: &Path,
) -> Result<(Option<Bytes>, BTreeSet<Arc<str>>)> {
    let mut references = References { version: VERSION, ..References::default() };
    let mut found = BTreeSet::new();
    for path in files {
        let bytes = container::map(path)
            .map_err(|e| input("bundle.weights", e.to_string()))
            .at(|| path.display().to_string())?;
        let held = module.weights.iter().filter_map(|(n, w)| Some((n, &w.data.as_ref()?.1)));
        let wanted: Vec<(&Arc<str>, &TensorData)> = held.filter(|(n, _)| !found.contains(*n)).collect();
        let places = search(bytes.as_slice(), &wanted.iter().map(|(_, d)| d.bytes()).collect::<Vec<_>>());
        let number = references.files.len();
        for ((name, data), offset) in wanted.iter().zip(&places) {
            let Some(offset) = offset else { continue };
            found.insert(Arc::clone(name));
            references.weights.insert(
                name.to_string(),
                Place {
                    file: number,
                    offset: *offset as u64,
                    bytes: data.bytes().len() as u64,
                    dtype: data.dtype().mlir().to_owned(),
                    shape: data.shape().to_vec(),
                },
            );
        }
        if places.iter().any(Option::is_some) {
            let content = FileInfo::of(bytes.as_slice());
            references.files.push(Named { name: relative(path, parent), content });
        }
    }
    if found.is_empty() {
        return Ok((None, found));
    }
    let text = serde_json::to_string_pretty(&references).unwrap_or_default() + "\n";
    Ok((Some(text.into_bytes().into()), found))
}

/// The way from a folder to a file, or the file's name alone where they have nothing in common.
fn relative(file: &Path, folder: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let way = || -> Option<String> {
        let (file, folder) = (file.canonicalize().ok()?, folder.canonicalize().ok()?);
        let pairs = file.components().zip(folder.components());
        let common = pairs.take_while(|(a, b)| a == b).count();
        let named = file.components().take(common).any(|c| matches!(c, Component::Normal(_)));
        let up = folder.components().skip(common).map(|_| Some("..".to_owned()));
        let down = file.components().skip(common).map(|c| Some(c.as_os_str().to_str()?.to_owned()));
        let parts: Option<Vec<String>> = up.chain(down).collect();
        parts.filter(|_| named).map(|parts| parts.join("/"))
    };
    way().unwrap_or(name)
}

/// Where each of these byte strings first stands in a file, if it does.
fn search(file: &[u8], wanted: &[&[u8]]) -> Vec<Option<usize>> {
    let mut places = vec![None; wanted.len()];
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut filter = vec![false; 1 << FILTER_BITS];
    for (number, bytes) in wanted.iter().enumerate().filter(|(_, b)| b.len() >= WINDOW) {
        let hash = bytes[..WINDOW].iter().fold(0, push);
        by_hash.entry(hash).or_default().push(number);
        filter[slot(hash)] = true;
    }
    if file.len() < WINDOW || by_hash.is_empty() {
        return places;
    }
    let all = wanted.iter().map(|b| b.len()).fold(file.len(), usize::saturating_add);
    let mut left = all.saturating_mul(MAX_COMPARED);
    let leaving = (0..WINDOW).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut hash = file[..WINDOW].iter().fold(0, push);
    for start in 0..=file.len() - WINDOW {
        if start > 0 {
            let out = (u64::from(file[start - 1]) + 1).wrapping_mul(leaving);
            hash = push(hash, &file[start + WINDOW - 1]).wrapping_sub(out);
        }
        if !filter[slot(hash)] {
            continue;
        }
        let Some(candidates) = by_hash.get_mut(&hash) else { continue };
        candidates.retain(|number| {
            let bytes = wanted[*number];
            let Some(there) = file.get(start..start.saturating_add(bytes.len())) else { return true };
            if left < bytes.len() {
                return false;
            }
            left -= common(there, bytes);
            let same = there == bytes;
            if same {
                places[*number] = Some(start);
            }
            !same
        });
        if candidates.is_empty() {
            by_hash.remove(&hash);
        }
    }
    places
}

/// One byte more in a rolling hash (Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987).
fn push(hash: u64, byte: &u8) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(u64::from(*byte) + 1)
}

fn slot(hash: u64) -> usize {
    (hash >> (u64::BITS - FILTER_BITS)) as usize
}

/// Bytes that two strings have in common at their beginning, and one more, as far as they go: what comparing them costs.
fn common(a: &[u8], b: &[u8]) -> usize {
    // In blocks: only the order of magnitude matters.
    let same = a.chunks(4096).zip(b.chunks(4096)).take_while(|(a, b)| a == b).count();
    (same + 1).saturating_mul(4096).min(a.len())
}

/// Gives the module's weights their values from the files that the part of a bundle names. `parent` is the folder in which
/// the bundle is; `given` are files that may be anywhere.
pub(super) fn add(module: &mut Module, part: &Bytes, bundle: &Path, given: &[PathBuf]) -> Result<()> {
    let malformed = |what: String| input("bundle.weights", what).help("write the bundle again");
    let references: References =
        serde_json::from_slice(part.as_slice()).map_err(|e| malformed(e.to_string()))?;
    if references.version != VERSION {
        return Err(malformed(format!("version {}, this is {VERSION}", references.version)));
    }
    let files: Vec<Bytes> =
        references.files.iter().map(|named| open(named, bundle, given)).collect::<Result<_>>()?;
    for (name, place) in &references.weights {
        let window = || {
            let (offset, len) = (usize::try_from(place.offset).ok()?, usize::try_from(place.bytes).ok()?);
            let bytes = files.get(place.file)?.part(offset, len)?;
            TensorData::new(DType::from_mlir(&place.dtype)?, place.shape.clone(), bytes)
        };
        let data = window().ok_or_else(|| malformed(format!("'{name}' is not within its file")))?;
        insert(module, name, data)?;
    }
    Ok(())
}

/// The first file that has the hash: one of the given ones, the one that is named, one of its name beside the bundle.
fn open(named: &Named, bundle: &Path, given: &[PathBuf]) -> Result<Bytes> {
    let bundle = bundle.canonicalize().unwrap_or_else(|_| bundle.to_owned());
    let parent = bundle.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let plain = Path::new(&named.name).file_name();
    let places =
        [Some(parent.join(&named.name)), plain.map(|n| parent.join(n)), plain.map(|n| bundle.join(n))];
    let mut altered = None;
    for path in given.iter().cloned().chain(places.into_iter().flatten()) {
        let size = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
        if size.is_none() {
            // A file that was named is told of, whatever it is.
            altered = given.contains(&path).then_some(path).or(altered);
            continue;
        }
        if size == Some(named.content.bytes)
            && let Ok(bytes) = container::map(&path)
            && FileInfo::of(bytes.as_slice()) == named.content
        {
            return Ok(bytes);
        }
        altered = Some(path);
    }
    Err(missing(named, altered.as_deref()))
}

fn missing(named: &Named, altered: Option<&Path>) -> Box<Diagnostic> {
    let (name, bytes) = (&named.name, named.content.bytes);
    let message = match altered {
        None => format!("the weights are in '{name}' ({bytes} bytes), which is not there"),
        Some(path) => {
            let path = path.display();
            format!("the weights are in '{name}' ({bytes} bytes); '{path}' is another file")
        }
    };
    input("bundle.weights", message)
        .shortened()
        .help("put the file there, or name it: djinn-opt run BUNDLE --weights FILE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_wherever_they_are() {
        let mut random = crate::random::SplitMix(1);
        let mut file: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
        file.extend([0; 50_000]);
        let slices = [(1usize, 64), (0, 100_000), (99_936, 64), (77_777, 12_345), (149_936, 64)];
        let mut wanted: Vec<&[u8]> = slices.iter().map(|(at, len)| &file[*at..at + len]).collect();
        let (zeros, odd) = ([0; 60_000], [7; 64]);
        wanted.extend([&zeros[..], &odd, &file[5..10]]);
        let places = search(&file, &wanted);
        assert_eq!(places, [Some(1), Some(0), Some(99_936), Some(77_777), Some(100_000), None, None, None]);
        assert_eq!(search(&file[..10], &wanted), [None; 8]);
    }

    #[test]
    fn a_search_among_equal_bytes_ends() {
        let file = vec![0; 2 << 20];
        let mut wanted = vec![0; 1 << 20];
        wanted[(1 << 20) - 1] = 1;
        assert_eq!(search(&file, &[&wanted]), [None]);
    }

    #[test]
    fn ways_are_relative() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).expect("made");
        let file = folder.path().join("m.bin");
        std::fs::write(&file, b"x").expect("written");
        assert_eq!(relative(&file, &inner), "../../m.bin");
        assert_eq!(relative(&file, folder.path()), "m.bin");
        assert_eq!(relative(Path::new("/nowhere/m.bin"), folder.path()), "m.bin");
    }
}
