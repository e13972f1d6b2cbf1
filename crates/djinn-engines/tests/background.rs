//! Builds in the background: what is told when, who builds what, and how it ends.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{content, finish, key, open, order, spawn, tempdir, unwanted};
use djinn_diag::unsupported;
use djinn_engines::{Background, BuildContext, CacheOptions, EngineCache, Status};

const MS: Duration = Duration::from_millis(1);

#[test]
fn child() {
    let Some((_, dir, _)) = order() else { return };
    let background = Background::new(Arc::new(open(&dir)), 4).expect("starts");
    background.submit(&key(1), |_| {
        thread::sleep(300 * MS);
        Ok(vec![1])
    });
    background.submit(&key(1), unwanted);
    assert!(matches!(background.wait(&key(1)), Status::Ready(_)));
    // User and system time, in hundredths of a second.
    let statistics = std::fs::read_to_string("/proc/self/stat").expect("there");
    let ticks: u64 =
        statistics.split(' ').skip(13).take(2).map(|t| t.parse::<u64>().expect("a number")).sum();
    assert!(ticks <= 15, "waiting for 300 ms took {ticks}0 ms of processor");
}

#[test]
fn waiting_takes_no_processor() {
    let (_keep, dir) = tempdir();
    finish(vec![spawn("idle", &dir, 0)]);
}

fn without_folder() -> Arc<EngineCache> {
    Arc::new(EngineCache::without_folder(CacheOptions::default()))
}

#[test]
fn the_fallback_serves_until_the_engine_is_ready() {
    let (_keep, dir) = tempdir();
    let cache = Arc::new(open(&dir));
    let background = Background::new(Arc::clone(&cache), 1).expect("starts");
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    assert_eq!(background.poll(&key(1)), Status::Unknown);
    assert!(background.submit(&key(1), move |_| {
        wait.lock().expect("one builder").recv().expect("goes");
        Ok(content(1, 100))
    }));
    assert!(background.submit(&key(2), |_| Ok(content(2, 100))));
    while background.poll(&key(1)) != Status::Building {
        thread::sleep(MS);
    }
    assert_eq!(background.poll(&key(2)), Status::Queued);
    assert!(!background.submit(&key(1), unwanted) && !background.submit(&key(2), unwanted));
    go.send(()).expect("is waited for");
    for number in [1, 2] {
        let Status::Ready(engine) = background.wait(&key(number)) else { panic!("is not ready") };
        assert!(*engine == content(number, 100) && engine.was_built());
        assert_eq!(background.poll(&key(number)), Status::Unknown);
    }
    // What is in the cache is not built again.
    assert!(background.submit(&key(1), unwanted));
    assert!(matches!(background.wait(&key(1)), Status::Ready(engine) if !engine.was_built()));
    assert_eq!(cache.record(&key(1)).build.count, 1);
}

#[test]
fn failures_and_panics_are_told_and_harm_nobody() {
    let background = Background::new(without_folder(), 2).expect("starts");
    background.submit(&key(1), |_| Err(unsupported("fake.op", "no such layer").into()));
    background.submit(&key(2), |_| panic!("at the disco"));
    background.submit(&key(3), |_| Ok(vec![3]));
    assert!(matches!(background.wait(&key(1)), Status::Failed(d) if d.code == "fake.op"));
    let Status::Failed(diagnostic) = background.wait(&key(2)) else { panic!("did not fail") };
    assert!(diagnostic.code == "engines.panic" && diagnostic.message.ends_with("panicked: at the disco"));
    assert!(matches!(background.wait(&key(3)), Status::Ready(_)));
    assert!(matches!(background.poll(&key(1)), Status::Failed(_)));
    assert!(!background.submit(&key(1), unwanted));
}

#[test]
fn dropping_cancels_what_is_queued_and_ends_what_runs() {
    let built = Arc::new(AtomicU32::new(0));
    let background = Background::new(without_folder(), 2).expect("starts");
    for number in 0..20 {
        let built = Arc::clone(&built);
        background.submit(&key(number), move |context: &BuildContext| {
            built.fetch_add(1, Ordering::SeqCst);
            while !context.is_cancelled() {
                thread::sleep(MS);
            }
            Err(unsupported("fake.cancelled", "nobody wants it").into())
        });
    }
    while built.load(Ordering::SeqCst) < 2 {
        thread::sleep(MS);
    }
    background.cancel(&key(19));
    background.cancel(&key(0));
    assert_eq!(background.poll(&key(0)), Status::Unknown);
    assert_eq!(background.wait(&key(19)), Status::Unknown);
    let start = Instant::now();
    drop(background);
    assert!(start.elapsed() < 5000 * MS);
    assert!(built.load(Ordering::SeqCst) <= 3);
}

#[test]
fn a_cancelled_build_is_no_refusal() {
    let cache = without_folder();
    let context = BuildContext::default();
    context.cancel();
    let result = cache.get_or_build_with(&key(1), &context, |context| {
        assert!(context.is_cancelled());
        Err(unsupported("fake.cancelled", "gave up").into())
    });
    assert!(result.is_err() && cache.record(&key(1)).failure.is_none());
    assert!(cache.get_or_build(&key(1), |_| Ok(vec![1])).is_ok());
}

/// Holds the lock of key 1 in another process's manner until told; then builds it or not.
fn elsewhere(builds: bool) -> (Status, bool) {
    let (_keep, dir) = tempdir();
    let (other, cache) = (open(&dir), Arc::new(open(&dir)));
    let (locked, is_locked) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let background = Background::new(cache, 1).expect("starts");
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            other.get_or_build(&key(1), |_| {
                locked.send(()).expect("is waited for");
                wait.recv().expect("goes");
                if builds {
                    Ok(content(1, 50))
                } else {
                    Err(djinn_diag::input("fake.memory", "too little").into())
                }
            })
        });
        is_locked.recv().expect("locks");
        background.submit(&key(1), |_| Ok(content(1, 50)));
        while background.poll(&key(1)) != Status::Elsewhere {
            thread::sleep(MS);
        }
        // The thread is free for other engines meanwhile.
        background.submit(&key(2), |_| Ok(vec![2]));
        assert!(matches!(background.wait(&key(2)), Status::Ready(_)));
        assert_eq!(background.poll(&key(1)), Status::Elsewhere);
        go.send(()).expect("is waited for");
        loop {
            match background.poll(&key(1)) {
                Status::Queued | Status::Building | Status::Elsewhere => thread::sleep(MS),
                status => return status,
            }
        }
    });
    let built = matches!(&status, Status::Ready(engine) if engine.was_built());
    (status, built)
}

#[test]
fn what_others_build_is_taken_or_built_if_they_fail() {
    for builds in [true, false] {
        let (status, built) = elsewhere(builds);
        assert!(matches!(status, Status::Ready(engine) if *engine == content(1, 50)));
        assert_eq!(built, !builds);
    }
}

#[test]
fn waiting_for_another_process_takes_its_engine() {
    let (_keep, dir) = tempdir();
    let (other, cache) = (open(&dir), Arc::new(open(&dir)));
    let background = Background::new(cache, 1).expect("starts");
    let (locked, is_locked) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            other.get_or_build(&key(1), |_| {
                locked.send(()).expect("is waited for");
                thread::sleep(50 * MS);
                Ok(content(1, 50))
            })
        });
        is_locked.recv().expect("locks");
        background.submit(&key(1), unwanted);
        assert!(matches!(background.wait(&key(1)), Status::Ready(engine) if !engine.was_built()));
    });
}

#[test]
fn threads_share_one_build_also_without_a_folder() {
    for with_folder in [true, false] {
        let (_keep, dir) = tempdir();
        let cache = if with_folder { Arc::new(open(&dir)) } else { without_folder() };
        let built = AtomicU32::new(0);
        let barrier = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let engine = cache.get_or_build(&key(1), |_| {
                        built.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(100 * MS);
                        Ok(content(1, 50))
                    });
                    assert_eq!(*engine.expect("is built"), content(1, 50));
                });
            }
        });
        let statistics = cache.statistics();
        assert_eq!((built.into_inner(), statistics.builds), (1, 1));
        assert_eq!(statistics.shared + statistics.hits, 7, "{statistics:?}");
    }
}

#[test]
fn a_builder_that_panics_or_asks_for_itself_blocks_nobody() {
    let (_keep, dir) = tempdir();
    let cache = open(&dir);
    let inner = cache.get_or_build(&key(1), |_| Ok(cache.get_or_build(&key(1), unwanted)?.to_vec()));
    assert_eq!(inner.expect_err("is a cycle").code, "engines.cycle");
    let nested = cache.get_or_build(&key(1), |_| Ok(cache.get_or_build(&key(2), |_| Ok(vec![2]))?.to_vec()));
    assert_eq!(*nested.expect("is built"), [2]);
    let started = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let _ = cache.get_or_build(&key(3), |_| {
                started.wait();
                thread::sleep(20 * MS);
                panic!("in the middle")
            });
        });
        started.wait();
        assert_eq!(*cache.get_or_build(&key(3), |_| Ok(vec![3])).expect("is built"), [3]);
        assert!(panics.join().is_err());
    });
}
