//! Bundles: a program and its plan in one folder that can be moved and is verified before use.
//!
//! | file | what it is |
//! |---|---|
//! | `manifest.json` | format, version, hash of the program; size and BLAKE3 hash of every other file |
//! | `module.mlir` | the program in the IR's text form, weights by name and hash |
//! | `plan.json` | the plan |
//! | `weights.safetensors` | the weights that have values |
//!
//! A bundle is written beside its final place and moved there whole; a folder that is no bundle is never replaced. Where
//! the system can exchange two folders at once, there is a whole bundle in place at every moment.

use djinn_diag::{Context, Diagnostic, Result, input, unsupported};
use djinn_ir::{DType, Module, TensorData, Weight};
use djinn_plan::Plan;
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Version of the bundle format; a reader refuses every other.
const VERSION: u32 = 1;
const FORMAT: &str = "djinn-bundle";
const MANIFEST: &str = "manifest.json";
const MODULE: &str = "module.mlir";
const PLAN: &str = "plan.json";
const WEIGHTS: &str = "weights.safetensors";
/// Bytes of a manifest, at most.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A program and its plan.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The program.
    pub module: Module,
    /// Its plan.
    pub plan: Plan,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    version: u32,
    program: String,
    files: BTreeMap<String, FileInfo>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileInfo {
    bytes: u64,
    blake3: String,
}

/// Is this the folder of a bundle?
pub fn is_bundle(path: &Path) -> bool {
    path.join(MANIFEST).is_file()
}

/// Writes a bundle to the folder `path`, replacing a bundle that is there.
///
/// # Errors
/// `bundle.place` if something that is no bundle is in the way, and those of the file system.
pub fn write_bundle(path: &Path, bundle: &Bundle) -> Result<()> {
    write_unplaced(path, bundle).at(|| path.display().to_string())
}

fn write_unplaced(path: &Path, bundle: &Bundle) -> Result<()> {
    // A link stays a link: what it points to is replaced.
    let target = path.canonicalize();
    if let Err(e) = &target
        && e.kind() == std::io::ErrorKind::NotFound
        && path.is_symlink()
    {
        return Err(input("bundle.place", "the name of the folder is a link to nothing")
            .help("remove the link, or make the folder that it names"));
    }
    let path = target.as_deref().unwrap_or(path);
    if path.exists() && !may_be_replaced(path) {
        return Err(input("bundle.place", "something that is no bundle is in the way")
            .help("name a folder that does not exist yet"));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = staging_prefix(&name);
    let staging = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(failed)?;
    let alive = std::fs::File::create(staging.path().join(LOCK)).map_err(failed)?;
    alive.lock().map_err(failed)?;
    let fresh = staging.path().join("new");
    std::fs::create_dir(&fresh).map_err(failed)?;
    write_files(&fresh, bundle)?;
    put(&fresh, path, &staging.path().join("old")).map_err(failed)?;
    remove_leftovers(parent, &prefix);
    Ok(())
}

/// Moves the fresh bundle to its place. An old one ends where the fresh one was, or `aside` where the system cannot
/// exchange folders.
fn put(fresh: &Path, place: &Path, aside: &Path) -> std::io::Result<()> {
    match place.exists() {
        true if exchange(fresh, place) => Ok(()),
        true => put_in_steps(fresh, place, aside),
        false => std::fs::rename(fresh, place),
    }
}

/// Moves the old bundle aside and the fresh one to its place; between the two steps there is none.
fn put_in_steps(fresh: &Path, place: &Path, aside: &Path) -> std::io::Result<()> {
    std::fs::rename(place, aside)?;
    std::fs::rename(fresh, place).inspect_err(|_| {
        // Puts the old bundle back rather than losing both.
        let _ = std::fs::rename(aside, place);
    })
}

/// Exchanges two folders in one step, if the system and the file system can.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

/// Exchanges two folders in one step, if the system and the file system can.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

/// The file in a hidden folder that its writer keeps locked.
const LOCK: &str = "lock";

/// How the hidden folders begin in which bundles of this name are written; a random part follows.
fn staging_prefix(name: &str) -> String {
    // A file system takes names of 255 bytes.
    let short = match name.len() {
        0..=100 => name.to_owned(),
        _ => blake3::hash(name.as_bytes()).to_hex()[..32].to_owned(),
    };
    format!(".djinn-bundle-{short}-")
}

/// A folder without a lock that is older than this was left by a writer that did not come so far.
const MAX_UNLOCKED: Duration = Duration::from_secs(60 * 60);

/// Removes what writers left that were killed, of the same bundle only. What cannot be removed stays.
fn remove_leftovers(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(random) = name.strip_prefix(prefix) else { continue };
        let is_ours = !random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_ours || !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let lock = std::fs::File::open(entry.path().join(LOCK));
        let age = || entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        let dead = match &lock {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => age().is_some_and(|age| age > MAX_UNLOCKED),
        };
        if dead {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Is this an empty folder, or the folder of a bundle with nothing else in it?
fn may_be_replaced(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let of_bundle = |name: &String| [MANIFEST, MODULE, PLAN, WEIGHTS].contains(&name.as_str());
    let format = || -> Option<String> {
        let bytes = read_limited(&path.join(MANIFEST), MAX_MANIFEST_BYTES).ok()?;
        serde_json::from_slice::<Manifest>(&bytes).ok().map(|m| m.format)
    };
    names.is_empty() || (names.iter().all(of_bundle) && format().as_deref() == Some(FORMAT))
}

fn failed(e: std::io::Error) -> Box<Diagnostic> {
    input("file.write", e.to_string()).help("check the folder and its free space")
}

fn write_files(folder: &Path, bundle: &Bundle) -> Result<()> {
    let mut files = BTreeMap::new();
    let mut write = |name: &str, bytes: &[u8]| -> Result<()> {
        std::fs::write(folder.join(name), bytes).map_err(failed)?;
        files.insert(name.to_owned(), file_info(bytes));
        Ok(())
    };
    write(MODULE, djinn_ir::text::print_module(&bundle.module).as_bytes())?;
    write(PLAN, djinn_plan::to_json(&bundle.plan)?.as_bytes())?;
    let held: Vec<(&str, Stored<'_>)> = bundle
        .module
        .weights
        .iter()
        .filter_map(|(name, w)| Some((&**name, Stored(&w.data.as_ref()?.1))))
        .collect();
    if !held.is_empty() {
        let bytes = safetensors::serialize(held, None)
            .map_err(|e| unsupported("bundle.weights", format!("the weights cannot be written: {e}")))?;
        write(WEIGHTS, &bytes)?;
    }
    let manifest =
        Manifest { format: FORMAT.into(), version: VERSION, program: bundle.plan.program.clone(), files };
    let text = serde_json::to_string_pretty(&manifest).map_err(|e| failed(e.into()))?;
    std::fs::write(folder.join(MANIFEST), text + "\n").map_err(failed)
}

fn file_info(bytes: &[u8]) -> FileInfo {
    FileInfo { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
}

/// A tensor as safetensors sees it.
struct Stored<'a>(&'a TensorData);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        safetensors_dtype(self.0.dtype())
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }
    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

fn safetensors_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::I8 => Dtype::I8,
        DType::I16 => Dtype::I16,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::U8 => Dtype::U8,
        DType::U16 => Dtype::U16,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

/// Reads a bundle and verifies it: every file is there and unaltered, the plan is of this program.
///
/// # Errors
/// `bundle.*` names the file that is missing or altered; whatever the parsers and the verifier find.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    read_unplaced(path).at(|| path.display().to_string())
}

fn read_unplaced(path: &Path) -> Result<Bundle> {
    if !is_bundle(path) {
        return Err(input("bundle.manifest", "this is no bundle: it has no manifest.json")
            .help("djinn-opt MODEL --device host --emit bundle -o FOLDER writes one"));
    }
    let manifest = read_limited(&path.join(MANIFEST), MAX_MANIFEST_BYTES).at(|| MANIFEST)?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|e| {
        input("bundle.manifest", format!("the manifest is malformed: {e}")).help("write it again")
    })?;
    if manifest.format != FORMAT || manifest.version != VERSION {
        let message = format!("the bundle has version {}, this is {VERSION}", manifest.version);
        return Err(input("bundle.version", message).help("write it again with this version of djinn-opt"));
    }
    if let Some(odd) = manifest.files.keys().find(|n| ![MODULE, PLAN, WEIGHTS].contains(&n.as_str())) {
        return Err(input("bundle.manifest", format!("the manifest names a file that no bundle has: {odd}")));
    }
    let file = |name: &str| verified(path, name, &manifest).at(|| name.to_owned());
    let module_text = String::from_utf8(file(MODULE)?)
        .map_err(|_| input("text.encoding", "the module is not UTF-8 text"))?;
    let mut module = djinn_ir::text::parse_module(&module_text).at(|| MODULE)?;
    if manifest.files.contains_key(WEIGHTS) {
        add_weights(&mut module, file(WEIGHTS)?).at(|| WEIGHTS)?;
    }
    djinn_ir::verify::verify(&module).at(|| MODULE)?;
    let plan_text =
        String::from_utf8(file(PLAN)?).map_err(|_| input("text.encoding", "the plan is not UTF-8 text"))?;
    let plan = djinn_plan::from_json(&plan_text).at(|| PLAN)?;
    let hash = crate::program_hash(&module);
    if plan.program != hash || manifest.program != hash {
        let message = format!("the plan is for program {}, the module is {hash}", plan.program);
        return Err(input("bundle.program", message).help("write the bundle again"));
    }
    Ok(Bundle { module, plan })
}

/// Reads a regular file of at most so many bytes.
fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| input("bundle.file", e.to_string()).help("the bundle is incomplete");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(input("bundle.file", "this is no regular file").help("write the bundle again"));
    }
    if metadata.len() > most {
        return Err(altered());
    }
    std::fs::read(path).map_err(unreadable)
}

fn altered() -> Box<Diagnostic> {
    input("bundle.altered", "the file is not the one that was written")
        .help("copy the bundle again, or write it again")
}

fn verified(path: &Path, name: &str, manifest: &Manifest) -> Result<Vec<u8>> {
    let info = manifest.files.get(name).ok_or_else(|| {
        input("bundle.manifest", "the manifest does not name the file").help("write the bundle again")
    })?;
    let bytes = read_limited(&path.join(name), info.bytes)?;
    let found = file_info(&bytes);
    if found.bytes != info.bytes || found.blake3 != info.blake3 {
        return Err(altered());
    }
    Ok(bytes)
}

/// Gives the module's weights their values.
fn add_weights(module: &mut Module, bytes: Vec<u8>) -> Result<()> {
    let malformed = |e: String| input("bundle.weights", format!("the weights are malformed: {e}"));
    let bytes: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(bytes);
    let slice = (*bytes).as_ref();
    let tensors = SafeTensors::deserialize(slice).map_err(|e| malformed(e.to_string()))?;
    for (name, tensor) in tensors.tensors() {
        let dtype = DType::ALL.into_iter().find(|d| safetensors_dtype(*d) == tensor.dtype());
        let dtype =
            dtype.ok_or_else(|| malformed(format!("'{name}' has a type that Djinn does not know")))?;
        let start = tensor.data().as_ptr() as usize - slice.as_ptr() as usize;
        let window = djinn_ir::data::Bytes::window(bytes.clone(), start, tensor.data().len())
            .ok_or_else(|| malformed(format!("'{name}' lies outside the file")))?;
        let data = TensorData::new(dtype, tensor.shape().to_vec(), window)
            .ok_or_else(|| malformed(format!("'{name}' has another size than its type")))?;
        let key: Arc<str> = Arc::from(name.as_str());
        let weight = Weight::with_data(data);
        let (hash, declared) = (weight.data.as_ref().map(|(h, _)| *h), module.weights.get(&key));
        if declared.is_some_and(|d| d.ty != weight.ty)
            || module.absent.get(&key).is_some_and(|h| Some(*h) != hash)
        {
            return Err(malformed(format!("'{name}' is not the weight that the module names")));
        }
        module.absent.remove(&key);
        module.weights.insert(key, weight);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two folders in it, each with a file that holds its name.
    fn two() -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
        let folder = tempfile::tempdir().expect("a folder");
        let made = ["fresh", "place"].map(|name| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("made");
            std::fs::write(path.join("is"), name).expect("written");
            path
        });
        (folder, made)
    }

    fn holds(path: &Path) -> Option<String> {
        std::fs::read_to_string(path.join("is")).ok()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_old_bundle_is_exchanged_in_one_step() {
        let (folder, [fresh, place]) = two();
        // There is no way to move it aside first.
        put(&fresh, &place, &folder.path().join("no/folder")).expect("exchanged");
        assert_eq!(holds(&place).as_deref(), Some("fresh"));
        assert_eq!(holds(&fresh).as_deref(), Some("place"));
    }

    #[test]
    fn without_an_exchange_the_old_bundle_is_moved_aside() {
        let (folder, [fresh, place]) = two();
        let aside = folder.path().join("aside");
        put_in_steps(&folder.path().join("none"), &place, &aside).expect_err("nothing to put");
        assert_eq!(holds(&place).as_deref(), Some("place"), "the old one is put back");
        put_in_steps(&fresh, &place, &aside).expect("put");
        assert_eq!(holds(&place).as_deref(), Some("fresh"));
        assert_eq!(holds(&aside).as_deref(), Some("place"));
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_nothing_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nothing", &link).expect("linked");
        let bundle = Bundle { module: Module::default(), plan: djinn_plan::sample::empty() };
        let e = write_bundle(&link, &bundle).expect_err("refused");
        assert_eq!(e.code, "bundle.place");
        assert!(e.message.contains("is a link to nothing"), "{e}");
        assert!(link.is_symlink() && std::fs::read_dir(folder.path()).expect("read").count() == 1);
        std::fs::create_dir(folder.path().join("nothing")).expect("made");
        write_bundle(&link, &bundle).expect("an empty folder is replaced");
        assert!(link.is_symlink() && is_bundle(&link));
    }

    #[test]
    fn leftovers_of_dead_writers_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.join("new")).expect("made");
            path
        };
        let lock = |path: &Path| std::fs::File::create(path.join(LOCK)).expect("made");
        let dead = make(".djinn-bundle-b-aB1");
        lock(&dead);
        let old = make(".djinn-bundle-b-aB2");
        let long_ago = std::time::SystemTime::now() - 2 * MAX_UNLOCKED;
        std::fs::File::open(&old).and_then(|f| f.set_modified(long_ago)).expect("aged");
        let alive = make(".djinn-bundle-b-aB3");
        let held = lock(&alive);
        held.lock().expect("locked");
        let kept = [
            alive,
            make(".djinn-bundle-b-aB4"),
            make(".djinn-bundle-other-aB5"),
            make(".djinn-bundle-b-c-aB6"),
            make(".djinn-bundle-b-my files"),
            make("b"),
        ];
        kept[2..].iter().for_each(|path| drop(lock(path)));
        let file = folder.path().join(".djinn-bundle-b-file");
        std::fs::write(&file, "a file").expect("written");
        remove_leftovers(folder.path(), &staging_prefix("b"));
        assert!(!dead.exists() && !old.exists());
        assert!(file.exists() && kept.iter().all(|k| k.exists()));
    }
}
