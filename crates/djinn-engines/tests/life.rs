//! The life of an engine: it is waited for, built, used, evicted and forgotten.

mod common;

use std::time::Duration;

use common::{content, files, key, open, tempdir, unwanted};
use djinn_diag::unsupported;
use djinn_engines::{CacheOptions, Decision, EngineCache, Policy, Predicted, Why};

const MS: Duration = Duration::from_millis(1);
const BREAK_EVEN: Policy = Policy::BreakEven { expected: None };

#[test]
fn an_engine_is_built_when_runs_of_all_processes_have_paid_for_it() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    assert_eq!(cache.decide(&key(1), BREAK_EVEN), Decision::Wait { executions: 1 });
    cache.predict(&key(1), Predicted { build: 200 * MS, fallback: 12 * MS, engine: 2 * MS });
    for run in 0..20 {
        // Each run is another process: all it knows is what is on disk.
        let cache = open(&dir);
        if run > 0 {
            assert_eq!(cache.decide(&key(1), BREAK_EVEN), Decision::Wait { executions: 20 - run });
        }
        cache.predict(&key(1), Predicted { build: 200 * MS, fallback: 12 * MS, engine: 2 * MS });
        cache.ran_fallback(&key(1), 1, 12 * MS);
    }
    let cache = open(&dir);
    assert_eq!(cache.decide(&key(1), BREAK_EVEN), Decision::Build);
    assert_eq!(cache.decide(&key(1), Policy::Never), Decision::Never(Why::Policy));
    cache.get_or_build(&key(1), |_| Ok(content(1, 10))).expect("is built");
    // The build ends the wait: should the engine be evicted, it is not built again at once.
    assert!(matches!(open(&dir).decide(&key(1), BREAK_EVEN), Decision::Wait { .. }));
    cache.ran_engine(&key(1), 4, 80 * MS);
    assert_eq!(cache.decide(&key(1), BREAK_EVEN), Decision::Never(Why::Slower));
}

#[test]
fn a_refused_region_is_not_tried_in_the_next_run() {
    let (_keep, dir) = tempdir();
    let refuse = |_: &djinn_engines::BuildContext| Err(unsupported("trt.op", "no such layer").into());
    assert!(open(&dir).get_or_build(&key(1), refuse).is_err());
    let cache = open(&dir);
    let Decision::Never(Why::Refused(failure)) = cache.decide(&key(1), Policy::Eager) else {
        panic!("is tried again")
    };
    assert_eq!(failure.diagnostic().to_string(), "unsupported[trt.op]: no such layer");
    assert_eq!(cache.get_or_build(&key(1), unwanted).expect_err("is refused").code, "trt.op");
    assert_eq!(cache.statistics().remembered, 1);
}

#[test]
fn the_longest_unused_engines_go_first_and_the_profile_stays() {
    let (_keep, dir) = tempdir();
    let options = CacheOptions { max_bytes: 50_000, ..CacheOptions::default() };
    let cache = EngineCache::open(&dir, options).expect("opens");
    let get =
        |number: u8| cache.get_or_build(&key(number), |_| Ok(content(number, 10_000))).expect("is built");
    for number in 0..4 {
        get(number);
    }
    let old = get(0);
    for number in 4..6 {
        get(number);
    }
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| cache.contains(&key(n))), [true, false, false, true, true, true]);
    let statistics = cache.statistics();
    assert_eq!((statistics.builds, statistics.hits, statistics.evictions), (6, 1, 2));
    assert_eq!(
        statistics.bytes,
        files(&dir.join("engines"), "").iter().map(|f| f.metadata().unwrap().len()).sum()
    );
    assert!(statistics.bytes <= 50_000);
    // What was handed out stays whole; what is too large for the cache is handed out and not kept.
    cache.remove(&key(0));
    assert_eq!(*old, content(0, 10_000));
    assert_eq!(
        *cache.get_or_build(&key(9), |_| Ok(content(9, 60_000))).expect("is built"),
        content(9, 60_000)
    );
    assert!(!cache.contains(&key(9)) && cache.statistics().dropped == 1);
    assert_eq!(open(&dir).record(&key(1)).build.count, 1);
}

#[test]
fn many_engines_are_read_at_once_in_order() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    for number in 0..10 {
        cache.get_or_build(&key(number), |_| Ok(content(number, 100))).expect("is built");
    }
    let keys: Vec<_> = (0..20).rev().map(|number| key(number).digest()).collect();
    let engines = cache.get_all(&keys);
    for (number, engine) in (0..20).rev().zip(engines) {
        assert_eq!(engine.map(|e| e.to_vec()), (number < 10).then(|| content(number, 100)));
    }
    assert!(cache.get_all(&[]).is_empty());
    assert_eq!((cache.statistics().hits, cache.statistics().misses), (10, 20));
}

#[test]
fn without_a_folder_nothing_is_kept_but_counts() {
    let cache = EngineCache::without_folder(CacheOptions::default());
    assert!(cache.get_or_build(&key(1), |_| Ok(vec![1])).expect("is built").was_built());
    assert!(cache.get(&key(1)).is_none() && !cache.contains(&key(1)));
    cache.ran_fallback(&key(1), 3, MS);
    cache.flush();
    assert_eq!((cache.record(&key(1)).build.count, cache.record(&key(1)).waited), (1, 3));
    assert_eq!((cache.statistics().dropped, cache.take_warnings()), (0, vec![]));
}

#[test]
fn what_is_done_is_remarked() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    cache.get_or_build(&key(1), |_| Ok(vec![0; 1234])).expect("is built");
    let _ = cache.get_or_build(&key(2), |_| Err(unsupported("trt.op", "no such layer").into()));
    let remarks: Vec<String> = cache.take_remarks().iter().map(ToString::to_string).collect();
    let [first, second] = [1, 2].map(|n| key(n).digest().short());
    assert_eq!(
        remarks,
        [
            format!("applied [engines] built at engine {first}: built an engine of 1.2 kB"),
            format!("missed [engines] failed at engine {second}: no engine: no such layer [trt.op]"),
        ]
    );
    assert!(cache.take_remarks().is_empty());
}
