//! The cache on disk: what it keeps and for how long, hostile directories, processes side by side, killed writers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use djinn_cache::{DiskCache, DiskCounters, DiskOptions, FORMAT_VERSION, Folder, Lookup, Naming, Refusal};

const SPACE: &str = "test/1";

/// Where the files of this format version lie.
fn own(dir: &Path) -> PathBuf {
    dir.join(format!("v{FORMAT_VERSION}"))
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(own(dir)).expect("the directory is there");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|p| p.to_string_lossy().ends_with(ending));
    paths.sort();
    paths
}

fn bytes(dir: &Path) -> u64 {
    files(dir, "").iter().map(|p| p.metadata().map_or(0, |m| m.len())).sum()
}

#[test]
fn values_come_back_also_in_another_process_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = DiskCache::open(&dir.path().join("a/b"), 1 << 20);
    assert_eq!(cache.get(SPACE, b"k"), None);
    assert!(cache.put(SPACE, b"k", b"one") && cache.put(SPACE, b"k", b"two") && cache.put(SPACE, b"", b""));
    let again = DiskCache::open(&dir.path().join("a/b"), 1 << 20);
    for cache in [&cache, &again] {
        assert_eq!(cache.get(SPACE, b"k").as_deref(), Some(&b"two"[..]));
        assert_eq!(cache.get(SPACE, b"").as_deref(), Some(&b""[..]));
        assert_eq!(cache.get("test/2", b"k"), None);
    }
    again.remove(SPACE, b"k");
    assert_eq!(cache.get(SPACE, b"k"), None);
    let expected = DiskCounters { hits: 2, misses: 3, stored: 3, ..DiskCounters::default() };
    assert_eq!(cache.counters(), expected);
    assert!(cache.take_warnings().is_empty() && cache.take_remarks().is_empty());
    let mode = own(&dir.path().join("a/b")).metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_directory_open_to_others_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(own(dir.path())).expect("makes");
    fs::set_permissions(own(dir.path()), fs::Permissions::from_mode(0o755)).expect("sets");
    DiskCache::open(dir.path(), 100);
    assert_eq!(own(dir.path()).metadata().expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_least_recently_used_leaves_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = DiskCache::open(dir.path(), 5_000);
    for key in 0..4u8 {
        assert!(cache.put(SPACE, &[key], &[key; 1000]));
    }
    assert!(cache.get(SPACE, &[0]).is_some());
    assert!(cache.put(SPACE, &[4], &[4; 1000]));
    assert!(bytes(dir.path()) <= 5_000);
    let kept = |cache: &DiskCache| (0..5u8).filter(|k| cache.get(SPACE, &[*k]).is_some()).collect::<Vec<_>>();
    assert_eq!(kept(&cache), [0, 2, 3, 4]);
    assert_eq!(cache.counters().evicted, 1);
    // What does not fit at all leaves the rest alone.
    assert!(!cache.put(SPACE, b"large", &[0; 5_000]));
    assert_eq!((kept(&cache), cache.counters().dropped), (vec![0, 2, 3, 4], 1));
    // A smaller bound holds from the start.
    let smaller = DiskCache::open(dir.path(), 2_500);
    assert_eq!(kept(&smaller), [3, 4]);
}

#[test]
fn many_values_stay_within_the_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = DiskCache::open(dir.path(), 20_000);
    for key in 0..200u32 {
        assert!(cache.put(SPACE, &key.to_le_bytes(), &vec![1; 10 * key as usize]));
        assert!(bytes(dir.path()) <= 20_000);
    }
    assert!(cache.get(SPACE, &199u32.to_le_bytes()).is_some() && bytes(dir.path()) > 15_000);
}

#[test]
fn odd_files_are_misses_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = DiskCache::open(dir.path(), 1 << 20);
    let spoil: [fn(&Path); 6] = [
        |p| fs::write(p, b"").expect("writes"),
        |p| fs::write(p, vec![b'x'; 2 << 20]).expect("writes"),
        |p| {
            let mut bytes = fs::read(p).expect("reads");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(p, bytes).expect("writes");
        },
        |p| {
            let bytes = fs::read(p).expect("reads");
            fs::write(p, &bytes[..bytes.len() - 1]).expect("writes");
        },
        |p| {
            fs::remove_file(p).expect("removes");
            std::os::unix::fs::symlink("/dev/zero", p).expect("links");
        },
        |p| {
            // Somebody else's value under this name.
            let other = p.with_file_name("other");
            fs::rename(p, &other).expect("renames");
            let cache = DiskCache::open(p.parent().and_then(Path::parent).expect("a parent"), 1 << 20);
            cache.put(SPACE, b"else", b"value");
            let theirs = fs::read_dir(p.parent().expect("a parent")).expect("lists");
            let theirs = theirs.map(|e| e.expect("readable").path()).find(|e| e.extension().is_some());
            fs::copy(theirs.expect("there"), p).expect("copies");
        },
    ];
    for (number, spoil) in (1..).zip(spoil) {
        assert!(cache.put(SPACE, b"k", b"value"));
        let path = files(dir.path(), ".blob").remove(0);
        spoil(&path);
        assert_eq!(cache.get(SPACE, b"k"), None, "case {number}");
        assert_eq!(cache.counters().corrupt, number);
        assert!(path.symlink_metadata().is_err(), "case {number} is still there");
    }
    assert!(cache.take_warnings().is_empty());
    // A directory that is not empty cannot be removed: a miss with a warning.
    cache.put(SPACE, b"d", b"value");
    let path =
        files(dir.path(), ".blob").into_iter().find(|p| fs::read(p).is_ok_and(|b| b.ends_with(b"dvalue")));
    let path = path.expect("there");
    fs::remove_file(&path).expect("removes");
    fs::create_dir_all(path.join("full")).expect("makes");
    assert_eq!((cache.get(SPACE, b"d"), cache.take_warnings().len()), (None, 1));
    assert!(!cache.put(SPACE, b"d", b"value"));
}

#[test]
fn a_useless_directory_is_a_warning_and_an_empty_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, b"x").expect("writes");
    for place in [file.as_path(), Path::new("/proc/no-cache-here"), Path::new("/dev/null/cache")] {
        let cache = DiskCache::open(place, 1 << 20);
        assert!(!cache.put(SPACE, b"k", b"v"));
        assert_eq!(cache.get(SPACE, b"k"), None);
        let warnings = cache.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].code.starts_with("cache.") && warnings[0].help.is_some());
        assert!(warnings[0].message.contains(&place.display().to_string()));
    }
    // The directory vanishes while the cache is open.
    let cache = DiskCache::open(dir.path(), 1 << 20);
    fs::remove_dir_all(own(dir.path())).expect("removes");
    assert!(!cache.put(SPACE, b"k", b"v") && !cache.put(SPACE, b"k", b"v"));
    assert_eq!((cache.get(SPACE, b"k"), cache.take_warnings().len()), (None, 1));
}

#[test]
fn with_a_secret_only_what_was_stored_with_it_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = Folder::open_private(&dir.path().join("c")).expect("opens");
    let with = |secret| DiskCache::in_folder(&folder, DiskOptions { max_bytes: 1000, secret, sync: false });
    for (mine, other) in [(Some([1; 32]), Some([2; 32])), (Some([1; 32]), None), (None, Some([2; 32]))] {
        assert!(with(mine).put(SPACE, b"k", b"v"));
        assert_eq!(with(mine).lookup(SPACE, b"k"), Lookup::Found(b"v".to_vec()));
        assert_eq!(with(other).lookup(SPACE, b"k"), Lookup::Refused(Refusal::Hash));
        assert_eq!(with(mine).lookup(SPACE, b"k"), Lookup::Missing);
    }
}

#[test]
fn private_folders_refuse_links_and_what_others_may_write_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |path: &Path| Folder::open_private(path).expect_err("is refused").to_string();
    let good = dir.path().join("good");
    Folder::open_private(&good).expect("opens");
    assert_eq!(good.metadata().expect("there").permissions().mode() & 0o777, 0o700);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&good, &link).expect("links");
    for path in [link.clone(), link.join(""), link.join(".")] {
        assert!(refused(&path).contains("symbolic link"), "{}", path.display());
    }
    std::os::unix::fs::symlink(&good, good.join("child")).expect("links");
    assert!(Folder::open_private(&good).expect("opens").child("child").is_err());
    for mode in [0o770, 0o702, 0o777, 0o1777] {
        fs::set_permissions(&good, fs::Permissions::from_mode(mode)).expect("sets");
        assert!(refused(&good).contains("may write"), "{mode:o}");
    }
    for name in ["", ".", "..", "a/b", "/a", "a/"] {
        let folder = Folder::open(dir.path()).expect("opens");
        assert!(folder.read(name).is_err() && folder.child(name).is_err(), "{name}");
        assert!(folder.write(name, &[b"x"], Naming::Replace, false).is_err(), "{name}");
    }
}

#[test]
fn locks_exclude_threads_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = Folder::open_private(dir.path()).expect("opens");
    let (held, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let lock = folder.lock("l").expect("locks");
                    most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    assert!(folder.try_lock("l").expect("tries").is_none());
                    held.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 1);
    assert!(folder.try_lock("l").expect("tries").is_some());
    // What is no plain file is nobody's lock.
    std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join("l")).expect("links");
    assert!(folder.try_lock("l").expect("tries").is_some());
    fs::create_dir(dir.path().join("l")).expect("makes");
    drop(folder.lock("l").expect("locks"));
    fs::create_dir_all(dir.path().join("l/full")).expect("makes");
    assert!(folder.lock("l").is_err());
    fs::remove_dir_all(dir.path().join("l")).expect("removes");
    assert!(folder.entries().expect("lists").is_empty());
}

#[test]
fn a_file_that_is_written_once_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = Folder::open_private(dir.path()).expect("opens");
    folder.write("f", &[b"one"], Naming::Once, true).expect("writes");
    let e = folder.write("f", &[b"two"], Naming::Once, true).expect_err("is there");
    assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(dir.path().join("f")).expect("there"), b"one");
    folder.write("f", &[b"th", b"ree"], Naming::Replace, true).expect("writes");
    assert_eq!(fs::read(dir.path().join("f")).expect("there"), b"three");
    assert_eq!(folder.entries().expect("lists").len(), 1);
}

#[test]
fn other_versions_are_ignored_with_one_remark() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("v0")).expect("makes");
    fs::create_dir_all(dir.path().join("v77")).expect("makes");
    fs::write(dir.path().join("v77/x.blob"), vec![0; 10_000]).expect("writes");
    let cache = DiskCache::open(dir.path(), 2_000);
    let remarks = cache.take_remarks();
    assert_eq!(remarks.len(), 1);
    assert!(
        remarks[0].message.contains("v0 and v77") && remarks[0].message.contains("uses v1"),
        "{}",
        remarks[0]
    );
    assert!(cache.put(SPACE, b"k", b"v") && cache.get(SPACE, b"k").is_some());
    assert!(dir.path().join("v77/x.blob").exists() && cache.take_remarks().is_empty());
}

/// What children do, by this variable: `role directory seed`. Without it the test does nothing.
const CHILD: &str = "DJINN_CACHE_TEST_CHILD";

fn spawn(role: &str, dir: &Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, format!("{role} {} {seed}", dir.display()));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

/// The value of a key: what it should hold can be told from its first byte.
fn value(key: u8, generation: u8) -> Vec<u8> {
    let mut value = vec![generation];
    value
        .extend((0..20_000 + 1000 * usize::from(key)).map(|i| (i as u8).wrapping_mul(31) ^ generation ^ key));
    value
}

fn verify(cache: &DiskCache, key: u8) -> Option<u8> {
    let found = cache.get(SPACE, &[key])?;
    assert!(found == value(key, found[0]), "key {key} holds something else");
    Some(found[0])
}

#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let mut words = order.split(' ');
    let (role, dir, seed) = (words.next(), words.next().expect("a directory"), words.next().expect("a seed"));
    let mut seed: u64 = seed.parse().expect("a number");
    let cache = DiskCache::open(Path::new(dir), 300_000);
    let rounds = if role == Some("forever") { u32::MAX } else { 150 };
    for _ in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (seed >> 40) as u8 % 16;
        if role == Some("both") {
            verify(&cache, key);
        }
        cache.put(SPACE, &[key], &value(key, (seed >> 50) as u8));
    }
    let counters = cache.counters();
    assert_eq!((counters.corrupt, counters.dropped, cache.take_warnings().len()), (0, 0, 0), "{counters:?}");
}

#[test]
fn killed_writers_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seed = 42u64;
    let (mut swept, mut seen, mut corrupt) = (0, 0, 0);
    let start = Instant::now();
    for round in 0..300 {
        let mut child = spawn("forever", dir.path(), round);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(2_000 + (seed >> 33) % 20_000));
        child.kill().expect("kills");
        child.wait().expect("ends");
        let cache = DiskCache::open(dir.path(), 300_000);
        seen += (0..16).filter(|&key| verify(&cache, key).is_some()).count();
        assert!(cache.take_warnings().is_empty());
        corrupt += cache.counters().corrupt;
        swept += cache.counters().swept;
        assert_eq!(files(dir.path(), ".tmp"), Vec::<PathBuf>::new(), "round {round}");
        assert!(bytes(dir.path()) <= 300_000);
    }
    assert_eq!(corrupt, 0);
    // The test means something: values were written, and writers were hit while they wrote.
    assert!(seen > 500 && swept > 5, "{seen} values seen, {swept} leftovers swept in {:?}", start.elapsed());
}

#[test]
fn processes_share_the_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let children: Vec<Child> = (0..4).map(|seed| spawn("both", dir.path(), 1000 + seed)).collect();
    let mut counters = DiskCounters::default();
    for mut child in children {
        // Others open the cache, and sweep, while the children write.
        while child.try_wait().expect("waits").is_none() {
            let cache = DiskCache::open(dir.path(), 300_000);
            for key in 0..16 {
                verify(&cache, key);
            }
            counters.corrupt += cache.counters().corrupt;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(counters.corrupt, 0);
    assert_eq!(files(dir.path(), ".tmp"), Vec::<PathBuf>::new());
    let cache = DiskCache::open(dir.path(), 300_000);
    assert!((0..16).filter(|&key| verify(&cache, key).is_some()).count() >= 5);
    assert!(bytes(dir.path()) <= 300_000);
}
