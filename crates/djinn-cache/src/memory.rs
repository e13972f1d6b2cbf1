//! Values in memory, the least recently used leaving first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a [`MemoryCache`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryCounters {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none.
    pub misses: u64,
    /// Values that left to make room.
    pub evicted: u64,
    /// Values that were larger than the whole cache and not taken.
    pub refused: u64,
}

/// A map of at most so many values and bytes; the value whose last use is longest ago leaves first. Threads may share it.
///
/// What it holds depends on the order of calls only, never on hashes or the clock.
pub struct MemoryCache<K, V> {
    inner: Mutex<Inner<K, V>>,
}

/// No slot: the end of a list.
const NONE: usize = usize::MAX;

struct Slot<K, V> {
    key: K,
    value: Arc<V>,
    bytes: u64,
    newer: usize,
    older: usize,
}

struct Inner<K, V> {
    max_entries: usize,
    max_bytes: u64,
    bytes: u64,
    places: HashMap<K, usize>,
    /// A list from the newest to the oldest, threaded through the slots.
    slots: Vec<Slot<K, V>>,
    newest: usize,
    oldest: usize,
    counters: MemoryCounters,
}

impl<K: Clone + Eq + Hash, V> MemoryCache<K, V> {
    /// An empty cache with these bounds.
    pub fn new(max_entries: usize, max_bytes: u64) -> MemoryCache<K, V> {
        MemoryCache {
            inner: Mutex::new(Inner {
                max_entries,
                max_bytes,
                bytes: 0,
                places: HashMap::new(),
                slots: Vec::new(),
                newest: NONE,
                oldest: NONE,
                counters: MemoryCounters::default(),
            }),
        }
    }

    /// The value of a key, which thereby becomes the most recently used one.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let mut inner = self.lock();
        let Some(&slot) = inner.places.get(key) else {
            inner.counters.misses += 1;
            return None;
        };
        inner.counters.hits += 1;
        if inner.newest != slot {
            inner.unlink(slot);
            inner.link_newest(slot);
        }
        Some(Arc::clone(&inner.slots[slot].value))
    }

    /// Puts a value that counts as so many bytes in the place of the key's old one. `false`: it is larger than the whole
    /// cache and was not taken; the old one is gone all the same.
    pub fn insert(&self, key: K, value: Arc<V>, bytes: u64) -> bool {
        let mut inner = self.lock();
        let old = inner.places.get(&key).copied().map(|slot| inner.remove(slot));
        let taken = inner.max_entries > 0 && bytes <= inner.max_bytes;
        let mut gone = Vec::new();
        if taken {
            while inner.slots.len() >= inner.max_entries || bytes > inner.max_bytes - inner.bytes {
                let oldest = inner.oldest;
                gone.push(inner.remove(oldest));
                inner.counters.evicted += 1;
            }
            inner.add(key, value, bytes);
        } else {
            inner.counters.refused += 1;
        }
        // Values are dropped outside the lock: that may take long.
        drop(inner);
        drop((old, gone));
        taken
    }

    /// Removes a key.
    pub fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        let mut inner = self.lock();
        let slot = inner.places.get(key).copied()?;
        Some(inner.remove(slot))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Is there no value?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the values count as.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// What has happened so far.
    pub fn counters(&self) -> MemoryCounters {
        self.lock().counters
    }

    /// Keys from the most to the least recently used.
    pub fn keys(&self) -> Vec<K> {
        let inner = self.lock();
        let first = Some(inner.newest).filter(|&slot| slot != NONE);
        let older = |slot: &usize| Some(inner.slots[*slot].older).filter(|&slot| slot != NONE);
        std::iter::successors(first, older).map(|slot| inner.slots[slot].key.clone()).collect()
    }

    /// A thread that panicked while it held the lock was the user's `Hash` or `Eq`, before anything was changed.
    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, V> Inner<K, V> {
    fn add(&mut self, key: K, value: Arc<V>, bytes: u64) {
        let slot = self.slots.len();
        self.places.insert(key.clone(), slot);
        self.slots.push(Slot { key, value, bytes, newer: NONE, older: NONE });
        self.bytes += bytes;
        self.link_newest(slot);
    }

    /// Removes a slot; the last one takes its place.
    fn remove(&mut self, slot: usize) -> Arc<V> {
        self.unlink(slot);
        let last = self.slots.len() - 1;
        if slot != last {
            let (newer, older) = (self.slots[last].newer, self.slots[last].older);
            self.join(newer, slot);
            self.join(slot, older);
            // `join` wrote to the neighbours; the moved slot keeps its own links.
            self.slots[last].newer = newer;
            self.slots[last].older = older;
            if let Some(place) = self.places.get_mut(&self.slots[last].key) {
                *place = slot;
            }
        }
        let gone = self.slots.swap_remove(slot);
        self.places.remove(&gone.key);
        self.bytes -= gone.bytes;
        gone.value
    }

    fn unlink(&mut self, slot: usize) {
        let (newer, older) = (self.slots[slot].newer, self.slots[slot].older);
        self.join(newer, older);
    }

    fn link_newest(&mut self, slot: usize) {
        let second = self.newest;
        self.join(slot, second);
        self.join(NONE, slot);
    }

    /// Makes two slots neighbours in the list.
    fn join(&mut self, newer: usize, older: usize) {
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_leaves_first() {
        let cache = MemoryCache::new(3, 100);
        for key in ["a", "b", "c"] {
            assert!(cache.insert(key.to_owned(), Arc::new(key.len()), 10));
        }
        assert!(cache.get("a").is_some());
        cache.insert("d".into(), Arc::new(0), 10);
        assert_eq!(cache.keys(), ["d", "a", "c"]);
        cache.insert("e".into(), Arc::new(0), 85);
        assert_eq!((cache.keys(), cache.bytes()), (vec!["e".into(), "d".into()], 95));
        assert!(cache.get("b").is_none());
        let expected = MemoryCounters { hits: 1, misses: 1, evicted: 3, refused: 0 };
        assert_eq!(cache.counters(), expected);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let cache = MemoryCache::new(3, 100);
        cache.insert(1, Arc::new(()), 50);
        assert!(!cache.insert(1, Arc::new(()), 101));
        assert!(cache.is_empty() && cache.bytes() == 0);
        assert!(!MemoryCache::new(0, 100).insert(1, Arc::new(()), 0));
    }

    #[test]
    fn agrees_with_a_plain_list() {
        let cache: MemoryCache<u64, u64> = MemoryCache::new(6, 50);
        let mut list: Vec<(u64, u64, u64)> = Vec::new();
        let mut state = 1u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, bytes) = ((state >> 33) % 12, (state >> 40) % 30);
            let known = list.iter().position(|e| e.0 == key);
            match (state >> 50) % 4 {
                0 => assert_eq!(cache.remove(&key).map(|v| *v), known.map(|at| list.remove(at).1)),
                1 => {
                    known.map(|at| list.remove(at));
                    list.push((key, step, bytes));
                    while list.len() > 6 || list.iter().map(|e| e.2).sum::<u64>() > 50 {
                        list.remove(0);
                    }
                    assert!(cache.insert(key, Arc::new(step), bytes));
                }
                _ => {
                    let found = known.map(|at| list.remove(at));
                    list.extend(found);
                    assert_eq!(cache.get(&key).map(|v| *v), found.map(|e| e.1));
                }
            }
            assert_eq!(cache.keys(), list.iter().rev().map(|e| e.0).collect::<Vec<_>>());
            assert_eq!(cache.bytes(), list.iter().map(|e| e.2).sum::<u64>());
        }
    }

    #[test]
    fn threads_share_it() {
        let cache = MemoryCache::new(10, 1000);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..1000 {
                        let key = (i * 7 + thread) % 30;
                        if let Some(value) = cache.get(&key) {
                            assert_eq!(*value, key);
                        }
                        cache.insert(key, Arc::new(key), 100);
                    }
                });
            }
        });
        assert_eq!((cache.len(), cache.bytes()), (10, 1000));
    }
}
