//! The cache under real processes: what is built how often, what survives kills, and what opening it costs.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Random, content, files, finish, key, lines, log, open, order, spawn, tempdir, unwanted};
use djinn_diag::{input, unsupported};
use djinn_engines::{CacheOptions, EngineCache, KeyDigest};

const MS: Duration = Duration::from_millis(1);

/// Bytes of the engine of a key in the storm of [`killed_processes_leave_a_cache_that_works`].
fn size(number: u8) -> usize {
    10_000 + 30_000 * usize::from(number)
}

#[test]
fn child() {
    let Some((role, dir, seed)) = order() else { return };
    match role.as_str() {
        "ask" => ask(&dir, seed),
        "storm" => storm(&dir, seed),
        "hang" => hang(&dir),
        "refuse" | "fail" => no_engine(&dir, &role),
        "count" => count(&dir, seed),
        "first" => drop(open(&dir)),
        other => panic!("unknown role {other}"),
    }
}

fn ask(dir: &Path, seed: u64) {
    let cache = open(dir);
    for i in 0..5 {
        let number = ((i + seed) % 5) as u8;
        let engine = cache.get_or_build(&key(number), |_| {
            log(&dir.with_extension("log"), &number.to_string());
            std::thread::sleep(50 * MS);
            Ok(content(number, 100_000))
        });
        assert!(*engine.expect("is built") == content(number, 100_000));
    }
    assert_eq!(cache.statistics().rejected(), 0);
    assert!(cache.take_warnings().is_empty());
}

#[test]
fn eight_processes_build_each_engine_once() {
    let (_keep, dir) = tempdir();
    let start = Instant::now();
    finish((0..8).map(|seed| spawn("ask", &dir, seed)).collect());
    println!("8 processes asked for 5 engines of 50 ms: {:?}", start.elapsed());
    assert_eq!(lines(&dir.with_extension("log")), ["0", "1", "2", "3", "4"]);
    let cache = open(&dir);
    for number in 0..5 {
        let engine = cache.get_or_build(&key(number), unwanted).expect("is there");
        assert!(*engine == content(number, 100_000) && !engine.was_built());
        assert_eq!(cache.record(&key(number)).build.count, 1);
    }
    assert!(files(&dir.join("locks"), "").is_empty() && files(&dir, ".tmp").is_empty());
}

/// Builds, reads, removes and counts until it is killed.
fn storm(dir: &Path, seed: u64) {
    let mut random = Random(seed);
    let cache = open(dir);
    loop {
        let number = random.below(8) as u8;
        if random.below(3) == 0 {
            cache.remove(&key(number));
        }
        let pause = MS * random.below(4) as u32;
        let engine = cache.get_or_build(&key(number), |_| {
            std::thread::sleep(pause);
            Ok(content(number, size(number)))
        });
        let right = *engine.expect("is built") == content(number, size(number));
        if !right || cache.statistics().rejected() > 0 || !cache.take_warnings().is_empty() {
            log(&dir.with_extension("log"), &format!("key {number}, right: {right}"));
        }
        cache.ran_fallback(&key(number), 1, MS);
        if random.below(4) == 0 {
            cache.flush();
        }
    }
}

#[test]
fn killed_processes_leave_a_cache_that_works() {
    let (_keep, dir) = tempdir();
    let mut random = Random(2026);
    let start = Instant::now();
    // On a busy machine processes need longer until they do anything: the first one tells how long.
    finish(vec![spawn("first", &dir, 0)]);
    let longest = 20_000 + 3 * u64::try_from(start.elapsed().as_micros()).expect("is short").min(20_000);
    let (mut building, mut writing, mut seen) = (0, 0, 0);
    for round in 0..100 {
        // Two at a time: one is killed while the other goes on.
        let mut children = [spawn("storm", &dir, 2 * round), spawn("storm", &dir, 2 * round + 1)];
        for child in &mut children {
            std::thread::sleep(Duration::from_micros(random.below(longest)));
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
        if round % 4 != 0 && round != 99 {
            continue;
        }
        building += files(&dir.join("locks"), ".lock").len();
        writing += files(&dir, ".tmp").len();
        let cache = open(&dir);
        for number in 0..8 {
            if let Some(engine) = cache.get(&key(number)) {
                assert!(*engine == content(number, size(number)), "round {round}, key {number}");
                seen += 1;
            }
        }
        assert_eq!((cache.statistics().rejected(), cache.take_warnings()), (0, vec![]), "round {round}");
        assert!(files(&dir.join("locks"), "").is_empty() && files(&dir, ".tmp").is_empty(), "round {round}");
    }
    assert_eq!(lines(&dir.with_extension("log")), Vec::<String>::new());
    let cache = open(&dir);
    for number in 0..8 {
        let engine = cache.get_or_build(&key(number), |_| Ok(content(number, size(number))));
        assert!(*engine.expect("there") == content(number, size(number)));
    }
    let (counted, built) = (0..8).map(|n| cache.record(&key(n))).fold((0, 0), |(counted, built), record| {
        (counted + record.fallback.count, built + record.build.count)
    });
    println!(
        "200 kills in {:?}: left {building} locks and {writing} temporary files, {seen} engines seen, {built} builds \
         and {counted} executions counted",
        start.elapsed()
    );
    // The test means something: processes were killed while they built and wrote.
    assert!(building > 0 && seen > 20 && built > 20 && counted > 20);
}

/// Builds for a minute, unless it is killed.
fn hang(dir: &Path) {
    let cache = open(dir);
    let _ = cache.get_or_build(&key(1), |_| {
        log(&dir.with_extension("log"), "building");
        std::thread::sleep(60_000 * MS);
        Ok(content(2, 10))
    });
}

#[test]
fn the_lock_of_a_dead_builder_goes_with_it() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    let mut child = spawn("hang", &dir, 0);
    while lines(&dir.with_extension("log")).is_empty() {
        std::thread::sleep(MS);
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.get_or_build(&key(1), |_| Ok(content(1, 10))));
        std::thread::sleep(50 * MS);
        assert!(!waiter.is_finished());
        child.kill().expect("kills");
        child.wait().expect("ends");
        let engine = waiter.join().expect("ends").expect("is built");
        assert!(engine.was_built() && *engine == content(1, 10));
    });
}

/// A builder that gives no engine.
fn no_engine(dir: &Path, role: &str) {
    let cache = open(dir);
    let result = cache.get_or_build(&key(1), |_| {
        log(&dir.with_extension("log"), role);
        std::thread::sleep(20 * MS);
        match role {
            "refuse" => Err(unsupported("fake.op", "no such layer").help("use another").into()),
            _ => Err(input("fake.memory", "out of memory").into()),
        }
    });
    let diagnostic = result.expect_err("there is no engine");
    match role {
        "refuse" => {
            assert_eq!(diagnostic.to_string(), "unsupported[fake.op]: no such layer\n  help: use another")
        }
        _ => assert_eq!(diagnostic.code, "fake.memory"),
    }
}

#[test]
fn processes_share_refusals_and_try_failures_themselves() {
    for (role, builds) in [("refuse", 1), ("fail", 4)] {
        let (_keep, dir) = tempdir();
        finish((0..4).map(|seed| spawn(role, &dir, seed)).collect());
        assert_eq!(lines(&dir.with_extension("log")), vec![role; builds]);
    }
    // A refusal is forgotten after a time.
    let (_keep, dir) = tempdir();
    finish(vec![spawn("refuse", &dir, 0)]);
    let cache = open(&dir);
    assert!(cache.get_or_build(&key(1), unwanted).is_err());
    assert_eq!(cache.statistics().remembered, 1);
    let options = CacheOptions { remember_refusals: Duration::ZERO, ..CacheOptions::default() };
    let cache = EngineCache::open(&dir, options).expect("opens");
    assert!(cache.get_or_build(&key(1), |_| Ok(vec![1])).is_ok());
    assert!(open(&dir).record(&key(1)).failure.is_none());
}

/// Counts executions and writes them now and then.
fn count(dir: &Path, seed: u64) {
    let cache = open(dir);
    for i in 0..200 {
        cache.ran_fallback(&key((i % 3) as u8), 1, MS);
        cache.ran_engine(&key(seed as u8), 2, MS);
        if i % 10 == seed % 10 {
            cache.flush();
        }
    }
}

#[test]
fn no_count_is_lost_between_processes() {
    let (_keep, dir) = tempdir();
    finish((0..6).map(|seed| spawn("count", &dir, seed)).collect());
    let cache = open(&dir);
    let counts: Vec<u64> = (0..3).map(|n| cache.record(&key(n)).fallback.count).collect();
    assert_eq!(counts, [6 * 67, 6 * 67, 6 * 66]);
    for seed in 0..6 {
        let engine = cache.record(&key(seed)).engine;
        assert_eq!((engine.count, engine.nanoseconds, engine.fastest), (400, 200_000_000, 500_000));
    }
}

#[test]
fn processes_that_come_first_together_agree_on_a_secret() {
    for _ in 0..5 {
        let (_keep, dir) = tempdir();
        finish((0..8).map(|seed| spawn("first", &dir, seed)).collect());
        assert_eq!(std::fs::read(dir.join("secret")).expect("there").len(), 32);
        assert!(files(&dir, ".tmp").is_empty());
    }
}

#[test]
fn a_second_start_with_forty_engines_is_fast() {
    const MEGABYTE: usize = 1 << 20;
    let (_keep, dir) = tempdir();
    let first = open(&dir);
    for number in 0..40 {
        first.get_or_build(&key(number), |_| Ok(content(number, MEGABYTE))).expect("is built");
    }
    drop(first);
    let keys: Vec<KeyDigest> = (0..40).map(|number| key(number).digest()).collect();
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let cache = open(&dir);
        let engines = cache.get_all(&keys);
        times.push(start.elapsed());
        for (number, engine) in (0..).zip(engines) {
            assert!(*engine.expect("there") == content(number, MEGABYTE));
        }
    }
    times.sort();
    println!("opened the cache and got 40 engines of 1 MiB in {times:?} (to reach: 50 ms)");
    assert!(times[0] < 2000 * MS, "{times:?}");
}
