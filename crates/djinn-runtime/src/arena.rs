//! A block of memory that threads share.
//!
//! The bytes stand in atomic words that are read and written without ordering of their own: the events of the plan
//! order the accesses. A plan that orders them wrongly reads wrong values, and nothing worse.

use djinn_diag::{Result, input};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// An allocation of a fixed number of bytes. Ranges that reach beyond its end read as zeros and are not written.
pub(crate) struct Arena {
    words: Vec<AtomicU64>,
}

impl Arena {
    /// Allocates `bytes` bytes, each of them `fill`.
    pub(crate) fn new(bytes: u64, fill: u8) -> Result<Arena> {
        let refused = || input("runtime.memory", format!("there is no memory for an arena of {bytes} bytes"));
        let count = usize::try_from(bytes.div_ceil(WORD as u64)).map_err(|_| refused())?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| refused())?;
        words.resize_with(count, || AtomicU64::new(u64::from_le_bytes([fill; WORD])));
        Ok(Arena { words })
    }

    /// The address of the byte at `start`, if so many bytes follow from it on. They may be written through it, since the
    /// words are cells.
    pub(crate) fn address(&self, start: u64, len: u64) -> Option<*mut u8> {
        let end = start.checked_add(len)?;
        let inside = end <= (self.words.len() * WORD) as u64;
        inside.then(|| self.words.as_ptr().cast::<u8>().cast_mut().wrapping_add(start as usize))
    }

    /// The bytes from `start` on.
    pub(crate) fn load(&self, start: u64, len: usize) -> Vec<u8> {
        let start = start as usize;
        let (skip, end) = (start % WORD, start % WORD + len);
        let words = self.words.get(start / WORD..).unwrap_or_default();
        let words = &words[..words.len().min(end.div_ceil(WORD))];
        let mut out = vec![0u8; words.len() * WORD];
        for (chunk, word) in out.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
            *chunk = word.load(Relaxed).to_le_bytes();
        }
        out.resize(end, 0);
        if skip > 0 {
            out.drain(..skip);
        }
        out
    }

    /// Writes bytes from `start` on.
    pub(crate) fn store(&self, start: u64, bytes: &[u8]) {
        let start = start as usize;
        let head = ((WORD - start % WORD) % WORD).min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        self.store_part(start, head);
        let (whole, tail) = rest.as_chunks::<WORD>();
        let first = start.div_ceil(WORD);
        for (word, bytes) in self.words.iter().skip(first).zip(whole) {
            word.store(u64::from_le_bytes(*bytes), Relaxed);
        }
        self.store_part((first + whole.len()) * WORD, tail);
    }

    /// Writes less than a word; its other bytes, which another stream may be writing, keep their values.
    fn store_part(&self, start: usize, bytes: &[u8]) {
        let Some(word) = self.words.get(start / WORD).filter(|_| !bytes.is_empty()) else { return };
        let (mut mask, mut value) = ([0u8; WORD], [0u8; WORD]);
        for ((m, v), b) in mask.iter_mut().zip(&mut value).skip(start % WORD).zip(bytes) {
            (*m, *v) = (u8::MAX, *b);
        }
        let (mask, value) = (u64::from_le_bytes(mask), u64::from_le_bytes(value));
        let mut old = word.load(Relaxed);
        while let Err(now) = word.compare_exchange_weak(old, (old & !mask) | value, Relaxed, Relaxed) {
            old = now;
        }
    }

    /// Writes `len` bytes of the value `fill` from `start` on.
    pub(crate) fn fill(&self, start: u64, len: u64, fill: u8) {
        const BLOCK: usize = 4096;
        let block = [fill; BLOCK];
        let (mut at, end) = (start, start.saturating_add(len).min((self.words.len() * WORD) as u64));
        while at < end {
            // Blocks after the first begin at whole words.
            let step = (BLOCK as u64 - at % WORD as u64).min(end - at);
            self.store(at, &block[..step as usize]);
            at += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_reads_back_and_leaves_its_neighbours() {
        for start in 0..20u64 {
            for len in 0..24usize {
                let arena = Arena::new(48, 0xEE).expect("fits");
                let bytes: Vec<u8> = (1..=len as u8).collect();
                arena.store(start, &bytes);
                let mut expected = vec![0xEE; 48];
                expected[start as usize..start as usize + len].copy_from_slice(&bytes);
                assert_eq!(arena.load(0, 48), expected, "{len} bytes at {start}");
                assert_eq!(arena.load(start, len), bytes);
                arena.fill(start, len as u64, 0xEE);
                assert_eq!(arena.load(0, 48), vec![0xEE; 48]);
            }
        }
    }

    #[test]
    fn threads_may_write_the_bytes_of_one_word() {
        let arena = Arena::new(8, 0).expect("fits");
        std::thread::scope(|s| {
            for i in 0..8u8 {
                let arena = &arena;
                s.spawn(move || (0..1000).for_each(|_| arena.store(u64::from(i), &[i + 1])));
            }
        });
        assert_eq!(arena.load(0, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn ranges_beyond_the_end_are_harmless() {
        let arena = Arena::new(10, 1).expect("fits");
        arena.store(100, &[9; 20]);
        arena.fill(5, u64::MAX, 2);
        assert_eq!(arena.load(1000, 3), [0; 3]);
        assert_eq!(arena.load(3, 4), [1, 1, 2, 2]);
        assert!(Arena::new(u64::MAX, 0).is_err());
    }
}
