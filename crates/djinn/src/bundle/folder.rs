//! A bundle as a folder: written beside its place, then moved there whole.

use super::manifest::{MANIFEST, named_files};
use super::{Bundle, Content, MAX_MANIFEST_BYTES, contents, failed};
use djinn_diag::{Result, input};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Writes a bundle to the folder `path` in the folder `parent`.
pub(super) fn write(
    path: &Path,
    parent: &Path,
    bundle: &Bundle,
    elsewhere: &BTreeSet<Arc<str>>,
) -> Result<()> {
    if path.exists() && !may_be_replaced(path) {
        return Err(input("bundle.place", "something that is no bundle is in the way")
            .help("name a folder that does not exist yet"));
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = staging_prefix(&name);
    let staging = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(failed)?;
    let alive = std::fs::File::create(staging.path().join(LOCK)).map_err(failed)?;
    alive.lock().map_err(failed)?;
    let fresh = staging.path().join("new");
    std::fs::create_dir(&fresh).map_err(failed)?;
    write_files(&fresh, bundle, elsewhere)?;
    put(&fresh, path, &staging.path().join("old")).map_err(failed)?;
    remove_leftovers(parent, &prefix);
    Ok(())
}

fn write_files(folder: &Path, bundle: &Bundle, elsewhere: &BTreeSet<Arc<str>>) -> Result<()> {
    let (manifest, files) = contents(bundle, elsewhere, folder)?;
    for (name, content) in files {
        // Others are files of this folder already.
        let Content::Bytes(bytes) = content else { continue };
        let path = folder.join(name);
        if let Some(inner) = path.parent() {
            std::fs::create_dir_all(inner).map_err(failed)?;
        }
        std::fs::write(path, bytes.as_slice()).map_err(failed)?;
    }
    std::fs::write(folder.join(MANIFEST), manifest.to_json()?).map_err(failed)
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

/// Is this an empty folder, or the folder of a bundle with nothing in it but what its manifest names?
fn may_be_replaced(path: &Path) -> bool {
    let Ok(mut names) = files_within(path, "", 0) else { return false };
    if names.is_empty() {
        return true;
    }
    let manifest = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path.join(MANIFEST))?.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Some(named) = names
        .iter()
        .position(|n| n == MANIFEST)
        .map(|at| names.swap_remove(at))
        .and_then(|_| named_files(&manifest().ok()?))
    else {
        return false;
    };
    names.iter().all(|name| named.contains(name))
}

/// Names of the files in a folder and in its folders; what is neither counts as a file.
fn files_within(path: &Path, prefix: &str, depth: usize) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() && depth == 0 {
            true => names.extend(files_within(&entry.path(), &format!("{name}/"), 1)?),
            false => names.push(name),
        }
    }
    Ok(names)
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
