//! Times of lookups: medians over many.
//!
//! `cargo run --release -p djinn-cache --example cache_bench`

use std::sync::Arc;
use std::time::Instant;

use djinn_cache::{DiskCache, MemoryCache};

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> std::io::Result<()> {
    let cache = MemoryCache::new(10_000, 1 << 30);
    let keys: Vec<[u8; 32]> = (0..10_000u32).map(key).collect();
    for key in &keys {
        cache.insert(*key, Arc::new(0u64), 1000);
    }
    let rounds = (0..9).map(|_| {
        let start = Instant::now();
        let found = keys.iter().rev().filter(|key| cache.get(*key).is_some()).count();
        start.elapsed().as_secs_f64() * 1e9 / found as f64
    });
    println!("memory, 10,000 values, 32-byte keys: {:.0} ns a lookup", median(rounds.collect()));
    let dir = tempfile::tempdir()?;
    let cache = DiskCache::open(dir.path(), 1 << 30);
    for bytes in [1_000, 100_000, 10_000_000] {
        let value = vec![7; bytes];
        let timed = |run: &dyn Fn() -> bool| {
            let start = Instant::now();
            assert!(run());
            start.elapsed().as_secs_f64() * 1e6
        };
        let put = median((0..21).map(|_| timed(&|| cache.put("bench/1", b"k", &value))).collect());
        let get = median((0..101).map(|_| timed(&|| cache.get("bench/1", b"k").is_some())).collect());
        println!("disk, {bytes} bytes: put {put:.0} µs, get {get:.0} µs");
    }
    Ok(())
}

/// A key that looks like a hash.
fn key(i: u32) -> [u8; 32] {
    let mut key = [0; 32];
    for (n, byte) in (0u32..).zip(&mut key) {
        *byte = (i.wrapping_mul(2_654_435_761).rotate_left(n)) as u8;
    }
    key[..4].copy_from_slice(&i.to_le_bytes());
    key
}
