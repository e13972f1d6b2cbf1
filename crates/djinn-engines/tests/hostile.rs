//! Folders that somebody tampered with, and systems that refuse: nothing wrong is served, nothing panics or hangs.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{CHILD, Random, content, files, key, open, order, tempdir, unwanted};
use djinn_engines::{BuildContext, CacheOptions, EngineCache, Statistics};

#[test]
fn child() {
    let Some((role, dir, _)) = order() else { return };
    match role.as_str() {
        "full" => full(&dir),
        "read-only" => read_only(&dir),
        "starved" => starved(&dir),
        other => panic!("unknown role {other}"),
    }
}

/// A cache with one engine, and the file of it.
fn one_engine(dir: &Path, number: u8) -> (EngineCache, PathBuf) {
    let cache = open(dir);
    cache.get_or_build(&key(number), |_| Ok(content(number, 64))).expect("is built");
    let file = files(&dir.join("engines"), ".blob").remove(0);
    (cache, file)
}

/// Puts something in the place of an engine; it must be refused for the expected reason, and go.
fn refused(cache: &EngineCache, number: u8, file: &Path, reason: fn(&Statistics) -> u64, what: &str) {
    let before = cache.statistics();
    assert_eq!(cache.get(&key(number)), None, "{what}");
    let after = cache.statistics();
    assert_eq!((after.misses, after.hits), (before.misses + 1, before.hits), "{what}");
    assert_eq!((reason(&after), after.rejected()), (reason(&before) + 1, before.rejected() + 1), "{what}");
    assert!(fs::symlink_metadata(file).is_err(), "{what} is still there");
    let remarks = cache.take_remarks();
    assert!(remarks.iter().any(|r| r.rule == "rejected"), "{what}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let (_keep, dir) = tempdir();
    let (cache, file) = one_engine(&dir, 1);
    let good = fs::read(&file).expect("there");
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, bad).expect("writes");
        refused(&cache, 1, &file, Statistics::rejected, "one bit");
    }
    for length in 0..good.len() {
        fs::write(&file, &good[..length]).expect("writes");
        refused(&cache, 1, &file, |s| s.rejected_form, "a cut file");
    }
    fs::write(&file, [&good[..], b"x"].concat()).expect("writes");
    refused(&cache, 1, &file, |s| s.rejected_form, "a longer file");
    // The test means something: the file as it was is taken.
    fs::write(&file, &good).expect("writes");
    assert_eq!(*cache.get(&key(1)).expect("there"), content(1, 64));
    println!("{} bits and {} cuts of a stored engine were refused", 8 * good.len(), good.len());
}

#[test]
fn an_engine_of_another_key_folder_or_form_is_refused() {
    let (_keep, dir) = tempdir();
    let (cache, file) = one_engine(&dir, 1);
    let good = fs::read(&file).expect("there");
    // Under the name of another key.
    let others = [dir.with_extension("other"), dir.with_extension("stranger")].map(|other| {
        let (_, file) = one_engine(&other, if other.ends_with("engines.other") { 2 } else { 1 });
        file
    });
    let renamed = file.with_file_name(others[0].file_name().expect("a name"));
    fs::write(&renamed, &good).expect("writes");
    refused(&cache, 2, &renamed, |s| s.rejected_form, "a renamed file");
    // Under its own name, from a folder with another secret.
    fs::copy(&others[1], &file).expect("copies");
    refused(&cache, 1, &file, |s| s.rejected_hash, "an engine of another folder");
    // With a hash that anybody can make.
    let plain = djinn_cache::DiskCache::open(&dir.with_extension("plain"), 10_000);
    plain.put("engine/1", &key(1).digest().0, &content(1, 64));
    fs::copy(files(&dir.with_extension("plain"), ".blob").remove(0), &file).expect("copies");
    refused(&cache, 1, &file, |s| s.rejected_hash, "an engine without a secret");
    // After the secret was changed.
    fs::write(&file, &good).expect("writes");
    fs::write(dir.join("secret"), [7; 32]).expect("writes");
    refused(&open(&dir), 1, &file, |s| s.rejected_hash, "an engine of another secret");
}

#[test]
fn files_that_are_no_files_are_refused() {
    let (_keep, dir) = tempdir();
    let (cache, file) = one_engine(&dir, 1);
    let elsewhere = dir.with_extension("elsewhere");
    fs::copy(&file, &elsewhere).expect("copies");
    type Spoil = fn(&Path, &Path);
    let spoils: [(&str, Spoil); 5] = [
        ("a link to the engine itself", |file, elsewhere| symlink(elsewhere, file).expect("links")),
        ("a link to nothing", |file, _| symlink("nothing", file).expect("links")),
        ("a link to itself", |file, _| symlink(file, file).expect("links")),
        ("a directory", |file, _| fs::create_dir(file).expect("makes")),
        ("a pipe", |file, _| {
            assert!(Command::new("mkfifo").arg(file).status().expect("runs").success());
        }),
    ];
    for (what, spoil) in spoils {
        fs::remove_file(&file).ok();
        spoil(&file, &elsewhere);
        refused(&cache, 1, &file, |s| s.rejected_kind, what);
    }
    assert!(elsewhere.exists());
    // A huge file without content takes no memory.
    let huge = fs::File::create(&file).expect("makes");
    huge.set_len(CacheOptions::default().max_bytes).expect("grows");
    refused(&cache, 1, &file, |s| s.rejected_form, "a huge file");
    fs::File::create(&file).expect("makes").set_len(1 << 40).expect("grows");
    refused(&cache, 1, &file, |s| s.rejected_size, "a file larger than the cache");
    // A directory that cannot go: engines are handed out all the same.
    fs::create_dir_all(file.join("full")).expect("makes");
    let engine = cache.get_or_build(&key(1), |_| Ok(content(1, 64))).expect("is built");
    assert_eq!(*engine, content(1, 64));
    assert_eq!(cache.statistics().dropped, 1);
    assert!(cache.take_remarks().iter().any(|r| r.rule == "dropped"));
    assert!(!cache.take_warnings().is_empty());
}

#[test]
fn a_file_that_changes_while_it_is_read_gives_nothing_wrong() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    let engine = |_: &BuildContext| Ok(content(1, 1 << 20));
    cache.get_or_build(&key(1), engine).expect("is built");
    let file = files(&dir.join("engines"), ".blob").remove(0);
    let good = fs::read(&file).expect("there");
    let stop = AtomicBool::new(false);
    let (mut whole, mut random) = (0, Random(1));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Wrong bytes come and go in the very file that is being read.
                let Ok(open) = fs::OpenOptions::new().write(true).open(&file) else { continue };
                let at = random.below(good.len() as u64) as usize;
                let _ = open.write_all_at(&[!good[at]; 1], at as u64);
                thread::sleep(Duration::from_micros(random.below(500)));
                let _ = open.write_all_at(&good[at..=at], at as u64);
                thread::sleep(Duration::from_micros(random.below(2000)));
            }
        });
        for _ in 0..200 {
            match cache.get(&key(1)) {
                Some(engine) => {
                    assert!(*engine == content(1, 1 << 20));
                    whole += 1;
                }
                None => fs::write(&file, &good).expect("writes"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let refused = cache.statistics().rejected();
    println!("{whole} engines were whole, {refused} were refused");
    assert!(whole > 10 && refused > 10);
}

#[test]
fn a_folder_that_is_exchanged_or_removed_is_noticed_by_nobody() {
    let (_keep, dir) = tempdir();
    let (cache, _) = one_engine(&dir, 1);
    let moved = dir.with_extension("moved");
    fs::rename(&dir, &moved).expect("renames");
    drop(one_engine(&dir, 2));
    assert_eq!(*cache.get(&key(1)).expect("there"), content(1, 64));
    assert!(cache.get(&key(2)).is_none());
    fs::remove_dir_all(&moved).expect("removes");
    for number in [1, 2] {
        let engine = cache.get_or_build(&key(number), |_| Ok(content(number, 64))).expect("is built");
        assert_eq!(*engine, content(number, 64));
    }
    assert_eq!(cache.statistics().dropped, 2);
    assert!(!cache.take_warnings().is_empty());
}

#[test]
fn folders_that_are_not_to_be_trusted_are_refused() {
    let (_keep, dir) = tempdir();
    drop(one_engine(&dir, 1));
    let refused = |dir: &Path, why: &str| {
        let error = EngineCache::open(dir, CacheOptions::default()).err().expect("is refused");
        assert_eq!(error.code, "engines.folder");
        assert!(error.message.contains(why) && error.help.is_some(), "{error}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("sets");
    for name in ["", "engines", "locks", "profile"] {
        let part = if name.is_empty() { dir.clone() } else { dir.join(name) };
        assert_eq!(part.metadata().expect("there").mode() & 0o777, 0o700, "{name}");
        for bad in [0o770, 0o707, 0o1777] {
            mode(&part, bad);
            refused(&dir, "other users may write to it");
        }
        mode(&part, 0o700);
        let moved = dir.with_extension("moved");
        fs::rename(&part, &moved).expect("renames");
        symlink(&moved, &part).expect("links");
        refused(&dir, "symbolic link");
        fs::remove_file(&part).expect("removes");
        fs::write(&part, b"").expect("writes");
        assert!(EngineCache::open(&dir, CacheOptions::default()).is_err());
        fs::remove_file(&part).expect("removes");
        fs::rename(&moved, &part).expect("renames");
    }
    // Root may give a folder away; others are refused at one of root's.
    if std::os::unix::fs::chown(&dir, Some(12_345), None).is_ok() {
        refused(&dir, "belongs to user 12345");
        std::os::unix::fs::chown(&dir, Some(0), None).expect("comes back");
    } else {
        refused(Path::new("/usr"), "belongs to user 0");
    }
    assert!(open(&dir).get_or_build(&key(1), unwanted).is_ok());
    for odd in ["", "/dev/null", "/dev/null/x", "/proc/nothing"] {
        refused(Path::new(odd), "cannot keep engines");
    }
    refused(&dir.join("x".repeat(5000)), "cannot keep engines");
}

#[test]
fn a_secret_that_is_none_is_refused() {
    let (_keep, dir) = tempdir();
    drop(open(&dir));
    let secret = dir.join("secret");
    assert_eq!(secret.metadata().expect("there").mode() & 0o777, 0o600);
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 6] = [
        ("32 bytes", |s| fs::write(s, [1; 31]).expect("writes")),
        ("32 bytes", |s| fs::write(s, [1; 33]).expect("writes")),
        ("32 bytes", |s| fs::write(s, []).expect("writes")),
        ("others may have", |s| {
            fs::write(s, [1; 32]).expect("writes");
            fs::set_permissions(s, Permissions::from_mode(0o644)).expect("sets");
        }),
        ("no plain file", |s| {
            fs::remove_file(s).expect("removes");
            symlink("/dev/zero", s).expect("links");
        }),
        ("no plain file", |s| {
            fs::remove_file(s).expect("removes");
            fs::create_dir(s).expect("makes");
        }),
    ];
    for (why, spoil) in spoils {
        spoil(&secret);
        let error = EngineCache::open(&dir, CacheOptions::default()).err().expect("is refused");
        assert!(error.code == "engines.folder" && error.message.contains(why), "{error}");
    }
}

/// Garbage of any kind under a name.
fn litter(random: &mut Random, path: &Path) {
    // Nothing is written through links, nor into pipes that nobody reads.
    if fs::symlink_metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        fs::remove_file(path).expect("removes");
    }
    let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
    let _ = match random.below(6) {
        0 => fs::create_dir_all(path),
        1 => fs::create_dir_all(path.join("full")),
        2 => symlink(["/etc/passwd", "nothing", "..", "../secret"][random.below(4) as usize], path),
        3 => Command::new("mkfifo").arg(path).output().map(|_| ()),
        // Half of what was there, and something else.
        4 => fs::read(path).and_then(|old| fs::write(path, [&old[..old.len() / 2], &bytes].concat())),
        _ => fs::write(path, bytes),
    };
}

#[test]
fn random_garbage_in_the_folder_does_no_harm() {
    let mut random = Random(7);
    let (mut rejected, mut kept) = (0, 0);
    for round in 0..8 {
        let (_keep, dir) = tempdir();
        let cache = open(&dir);
        for number in 0..6 {
            cache.get_or_build(&key(number), |_| Ok(content(number, 500))).expect("is built");
            cache.ran_fallback(&key(number), 1, Duration::from_secs(1));
        }
        drop(cache);
        let mut names = files(&dir, "");
        names.retain(|path| !path.ends_with("secret"));
        names.extend((0..6).map(|number| dir.join("locks").join(format!("{}.lock", key(number).digest()))));
        names.extend(["x.tmp", "v0", "profile/profile.lock", "engines/v1/\u{fc}.blob"].map(|n| dir.join(n)));
        for _ in 0..20 {
            let name = names[random.below(names.len() as u64) as usize].clone();
            if random.below(3) == 0 {
                fs::remove_file(&name).ok();
            }
            litter(&mut random, &name);
        }
        let cache = open(&dir);
        for number in 0..6 {
            let engine = cache.get_or_build(&key(number), |_| Ok(content(number, 500)));
            assert_eq!(*engine.expect("is there"), content(number, 500), "round {round}");
            cache.ran_fallback(&key(number), 1, Duration::from_secs(1));
        }
        cache.flush();
        let statistics = cache.statistics();
        rejected += statistics.rejected();
        kept += statistics.hits;
    }
    println!("{rejected} files were refused, {kept} engines were found");
    assert!(rejected > 10 && kept > 10);
}

/// Runs as a child that may write at most 4 KiB to a file.
fn full(dir: &Path) {
    let cache = open(dir);
    for _ in 0..3 {
        let engine = cache.get_or_build(&key(1), |_| Ok(content(1, 100_000))).expect("is built");
        assert!(engine.was_built() && *engine == content(1, 100_000));
    }
    let statistics = cache.statistics();
    assert_eq!((statistics.builds, statistics.dropped, statistics.hits), (3, 3, 0));
    assert!(cache.take_warnings().iter().any(|w| w.code.starts_with("cache.") && w.help.is_some()));
    let engine = cache.get_or_build(&key(2), |_| Ok(content(2, 100))).expect("is built");
    assert!(engine.was_built() && cache.get(&key(2)).is_some());
}

/// Runs as a child that may read the folder and not write to it.
fn read_only(dir: &Path) {
    let cache = open(dir);
    assert_eq!(*cache.get_or_build(&key(1), unwanted).expect("there"), content(1, 64));
    let engine = cache.get_or_build(&key(2), |_| Ok(content(2, 64))).expect("is built");
    assert_eq!(*engine, content(2, 64));
    assert_eq!(cache.statistics().dropped, 1);
    let warnings = cache.take_warnings();
    assert!(warnings.iter().any(|w| w.code == "engines.lock"), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.code == "cache.permission"), "{warnings:?}");
}

/// Runs as a child that may open few files, and opens all of them.
fn starved(dir: &Path) {
    let cache = open(dir);
    cache.get_or_build(&key(1), |_| Ok(content(1, 64))).expect("is built");
    let held: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    assert!(EngineCache::open(dir, CacheOptions::default()).is_err());
    for number in [1, 2] {
        let engine = cache.get_or_build(&key(number), |_| Ok(content(number, 64))).expect("is built");
        assert!(*engine == content(number, 64) && engine.was_built());
    }
    cache.flush();
    assert!(!cache.take_warnings().is_empty());
    drop(held);
    // What could not be read was not lost.
    assert!(!cache.get_or_build(&key(1), unwanted).expect("there").was_built());
    assert_eq!(cache.statistics().rejected(), 0);
    drop(cache);
    assert_eq!(open(dir).record(&key(1)).build.count, 2);
}

/// Runs a child through a shell that first does something.
fn run(shell: &[&str], first: &str, role: &str, dir: &Path) {
    let program = std::env::current_exe().expect("this program");
    let script = format!("{first} && exec \"$0\" --exact child --test-threads=1");
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", &script]).arg(program);
    let output = command.env(CHILD, format!("{role} {} 0", dir.display())).output().expect("runs");
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && texts[0].contains("1 passed"), "{}", texts.concat());
}

#[test]
fn a_full_disk_drops_engines_and_says_so() {
    let (_keep, dir) = tempdir();
    run(&["sh"], "trap '' XFSZ && ulimit -f 8", "full", &dir);
    assert_eq!((files(&dir, ".tmp").len(), files(&dir.join("engines"), ".blob").len()), (0, 1));
}

#[test]
fn a_process_without_free_file_numbers_gets_its_engines() {
    let (_keep, dir) = tempdir();
    run(&["sh"], "ulimit -n 64", "starved", &dir);
}

#[test]
fn a_read_only_folder_is_read() {
    let (_keep, dir) = tempdir();
    drop(one_engine(&dir, 1));
    if fs::metadata(&dir).expect("there").uid() == 0 {
        // Root may write anywhere but to a read-only mount, here in a name space of its own.
        let own = ["unshare", "--mount", "sh"];
        if !Command::new(own[0]).args([own[1], "true"]).output().is_ok_and(|o| o.status.success()) {
            println!("skipped: this system lets no process have its own mounts");
            return;
        }
        let mount = format!("mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}'", dir.display());
        return run(&own, &mount, "read-only", &dir);
    }
    for part in ["engines/v1", "engines", "locks", "profile/v1", "profile", ""] {
        fs::set_permissions(dir.join(part), Permissions::from_mode(0o500)).expect("sets");
    }
    run(&["sh"], "true", "read-only", &dir);
}
