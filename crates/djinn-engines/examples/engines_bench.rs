//! What a start costs that finds all its engines: opening the cache and getting 40 engines of 1 MiB.
//!
//! `cargo run --release -p djinn-engines --example engines_bench`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use djinn_engines::{CacheOptions, Engine, EngineCache, EngineKey, KeyDigest};

const ENGINES: u8 = 40;
const BYTES: usize = 1 << 20;

fn key(number: u8) -> EngineKey {
    EngineKey {
        region: [number; 32],
        weights: None,
        library: "bench".into(),
        version: "1".into(),
        platform: EngineKey::this_platform(),
        capabilities: Vec::new(),
        precision: "fp16".into(),
        profiles: Vec::new(),
        options: BTreeMap::new(),
    }
}

/// Time that this thread has spent on a processor: on a busy machine, what it waited for one is left out.
fn on_processor() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = statistics.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn main() {
    let dir = std::env::temp_dir().join(format!("djinn-engines-bench-{}", std::process::id()));
    let cache = EngineCache::open(&dir, CacheOptions::default()).expect("opens");
    let start = Instant::now();
    for number in 0..ENGINES {
        cache.get_or_build(&key(number), |_| Ok(vec![number; BYTES])).expect("is built");
    }
    println!("stored {ENGINES} engines of {BYTES} bytes in {:?}", start.elapsed());
    drop(cache);
    starts(&dir, "one thread", |cache, keys| keys.iter().map(|key| cache.get(*key)).collect());
    starts(&dir, "several threads", |cache, keys| cache.get_all(keys));
    std::fs::remove_dir_all(&dir).expect("removes");
}

/// Opens the cache and gets all engines a number of times.
fn starts(dir: &Path, how: &str, read: impl Fn(&EngineCache, &[KeyDigest]) -> Vec<Option<Engine>>) {
    let keys: Vec<KeyDigest> = (0..ENGINES).map(|number| key(number).digest()).collect();
    let mut best = [Duration::MAX; 4];
    for _ in 0..20 {
        let (start, busy) = (Instant::now(), on_processor());
        let cache = EngineCache::open(dir, CacheOptions::default()).expect("opens");
        let opened = start.elapsed();
        let found = read(&cache, &keys);
        let (all, busy) = (start.elapsed(), on_processor() - busy);
        assert!(found.iter().all(Option::is_some));
        let times = [opened, all - opened, all, busy];
        best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
    }
    let [open, get, together, busy] = best;
    println!(
        "{how}, best of 20 starts: open {open:?}, get {get:?}, together {together:?}; this thread was on a \
         processor for {busy:?}"
    );
}
