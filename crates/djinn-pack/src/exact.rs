//! Exact search for a packing within a capacity, after MiniMalloc (Moffitt, ASPLOS 2023, pages 238-252).
//!
//! Packings in which no buffer can move down are enumerated from low to high: the next buffer to place stands
//! at or above the last one (buffers of equal offset in order of a fixed rank), each at its least offset over
//! the placed ones. A branch ends early when
//!
//! - a buffer has been passed over and no unplaced neighbour can still lie in its way (*dominance*: it would
//!   fit where it was, so some other branch holds a packing at least as good);
//! - in a section, the least offsets of the unplaced buffers and their sizes together pass the capacity
//!   (the bound of one machine with release times: for every `r`, `r` plus the sizes of all that start at `r`
//!   or later).
//!
//! When the unplaced buffers fall apart into groups without conflicts, each is searched on its own.

use crate::instance::{FREE, Instance};

/// How the search of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A packing stands in [`Search::offset`].
    Found,
    /// There is none.
    None,
    /// The steps were used up.
    Stopped,
}

/// The state of a search.
pub(crate) struct Search<'a> {
    instance: &'a Instance,
    words: usize,
    /// One row of bits for each buffer: its neighbours.
    rows: Vec<u64>,
    /// The buffer of the same neighbours and size that comes before in the list of these, or none.
    twin: Vec<Option<u32>>,
    rank: Vec<u32>,
    latest: Vec<u64>,
    capacity: u64,
    /// The offsets of placed buffers in units.
    pub(crate) offset: Vec<u64>,
    unplaced: Vec<u64>,
    least: Vec<u64>,
    low: Vec<u64>,
    load: Vec<u64>,
    group: Vec<u32>,
    trail: Vec<(u32, u64)>,
    candidates: Vec<u32>,
    sorted: Vec<(u64, u32, u32)>,
    flood: Vec<u64>,
    steps: u64,
    limit: u64,
    /// Buffers placed so far, those taken back included.
    pub(crate) nodes: u64,
}

impl<'a> Search<'a> {
    /// Prepares the search for packings of `instance`, whose neighbours are listed.
    pub(crate) fn new(instance: &'a Instance) -> Self {
        let n = instance.len();
        let words = n.div_ceil(64);
        let mut rows = vec![0u64; n * words];
        for b in 0..n {
            for &a in instance.neighbours(b) {
                rows[b * words + a as usize / 64] |= 1 << (a % 64);
            }
        }
        Self {
            instance,
            words,
            rows,
            twin: twins(instance),
            rank: (0..n as u32).collect(),
            latest: vec![0; n],
            capacity: 0,
            offset: vec![0; n],
            unplaced: vec![0; words],
            least: vec![0; n],
            low: vec![0; n],
            load: vec![0; instance.sections],
            group: Vec::new(),
            trail: Vec::new(),
            candidates: Vec::new(),
            sorted: Vec::new(),
            flood: Vec::new(),
            steps: 0,
            limit: 0,
            nodes: 0,
        }
    }

    /// Searches for a packing within `capacity` bytes in at most `limit` steps, trying buffers of equal
    /// offset in the given order. Returns the steps taken too.
    pub(crate) fn run(&mut self, capacity: u64, order: &[u32], limit: u64) -> (Verdict, u64) {
        let n = self.instance.len();
        self.steps = 0;
        self.limit = limit;
        self.capacity = 0;
        for (rank, &b) in order.iter().enumerate() {
            self.rank[b as usize] = rank as u32;
        }
        self.rank_twins();
        for b in 0..n {
            let Some(latest) = self.instance.latest(b, capacity) else { return (Verdict::None, 0) };
            self.latest[b] = latest;
            self.capacity = self.capacity.max(latest + self.instance.size[b]);
            let fixed = self.instance.fixed[b];
            self.least[b] = if fixed == FREE { 0 } else { fixed };
            if self.least[b] > latest {
                return (Verdict::None, 0);
            }
        }
        self.unplaced.fill(0);
        for b in 0..n {
            self.unplaced[b / 64] |= 1 << (b % 64);
        }
        self.group.clear();
        self.group.extend(0..n as u32);
        self.trail.clear();
        self.candidates.clear();
        let verdict = self.parts(0, (0, 0));
        (verdict, self.steps)
    }

    /// Gives twins ranks in the order of their list, so that only one order of them is tried.
    fn rank_twins(&mut self) {
        let mut lists: Vec<Vec<usize>> = Vec::new();
        let mut list_of = vec![usize::MAX; self.twin.len()];
        for b in 0..self.twin.len() {
            if let Some(before) = self.twin[b] {
                let mut list = list_of[before as usize];
                if list == usize::MAX {
                    list = lists.len();
                    lists.push(vec![before as usize]);
                }
                lists[list].push(b);
                list_of[b] = list;
            }
        }
        for list in lists {
            let mut ranks: Vec<u32> = list.iter().map(|&b| self.rank[b]).collect();
            ranks.sort_unstable();
            for (b, rank) in list.into_iter().zip(ranks) {
                self.rank[b] = rank;
            }
        }
    }

    /// Searches the unplaced buffers in `group[begin..]`, each connected part on its own.
    fn parts(&mut self, begin: usize, floor: (u64, u32)) -> Verdict {
        let end = self.group.len();
        let mut rest = begin;
        while rest < end {
            let split = self.split_off_part(rest, end);
            if split == end && rest == begin {
                return self.node(begin, floor);
            }
            self.group.extend_from_within(rest..split);
            let verdict = self.node(end, floor);
            self.group.truncate(end);
            if verdict != Verdict::Found {
                // The parts before have been placed; they are taken back with this one.
                for &b in &self.group[begin..end] {
                    self.unplaced[b as usize / 64] |= 1 << (b % 64);
                }
                return verdict;
            }
            rest = split;
        }
        Verdict::Found
    }

    /// Moves the buffers connected with `group[begin]` to the front of `group[begin..end]`; returns their end.
    fn split_off_part(&mut self, begin: usize, end: usize) -> usize {
        let words = self.words;
        let mut seen = std::mem::take(&mut self.flood);
        seen.clear();
        seen.resize(words, 0);
        let first = self.group[begin] as usize;
        seen[first / 64] |= 1 << (first % 64);
        let mut reached = 1;
        // The group is in an order in which most buffers have a neighbour among those before.
        loop {
            let before = reached;
            for i in begin..end {
                let b = self.group[i] as usize;
                if seen[b / 64] >> (b % 64) & 1 == 0 {
                    let row = &self.rows[b * words..(b + 1) * words];
                    if row.iter().zip(&seen).any(|(a, b)| a & b != 0) {
                        seen[b / 64] |= 1 << (b % 64);
                        reached += 1;
                    }
                }
            }
            if reached == end - begin || reached == before {
                break;
            }
        }
        let split = begin + reached;
        if split < end {
            let is_in = |b: u32| seen[b as usize / 64] >> (b % 64) & 1 == 1;
            self.group[begin..end].sort_by_key(|&b| !is_in(b));
        }
        self.flood = seen;
        split
    }

    /// Searches the connected unplaced buffers in `group[begin..]`, none of which may come before `floor`.
    fn node(&mut self, begin: usize, floor: (u64, u32)) -> Verdict {
        let count = self.group.len() - begin;
        self.nodes += 1;
        self.steps += 2 * count as u64;
        if self.steps > self.limit {
            return Verdict::Stopped;
        }
        let Some(ceiling) = self.raise_passed(begin, floor) else { return Verdict::None };
        if !self.sections_fit(begin) {
            return Verdict::None;
        }
        let first = self.candidates.len();
        for i in 0..count {
            let (low, rank, b) = self.sorted[i];
            self.group[begin + i] = b;
            if low >= ceiling {
                continue;
            }
            let b = b as usize;
            let passed = (self.least[b], rank) < floor;
            let twin_waits = self.twin[b].is_some_and(|t| self.is_unplaced(t as usize));
            if !passed && !twin_waits {
                self.candidates.push(b as u32);
            }
        }
        let last = self.candidates.len();
        for i in first..last {
            let b = self.candidates[i];
            let verdict = self.place(begin, b as usize);
            if verdict != Verdict::None {
                self.candidates.truncate(first);
                return verdict;
            }
        }
        self.candidates.truncate(first);
        Verdict::None
    }

    fn is_unplaced(&self, b: usize) -> bool {
        self.unplaced[b / 64] >> (b % 64) & 1 == 1
    }

    /// Computes for each unplaced buffer of the group an offset below which no better packing has it.
    ///
    /// Returns the least end of a buffer at its least offset: nothing may be placed next at or above that.
    /// `None` when a buffer has been passed over for good.
    fn raise_passed(&mut self, begin: usize, floor: (u64, u32)) -> Option<u64> {
        let mut ceiling = u64::MAX;
        for &b in &self.group[begin..] {
            let b = b as usize;
            self.low[b] = self.least[b].max(floor.0);
            ceiling = ceiling.min(self.least[b] + self.instance.size[b]);
        }
        for i in begin..self.group.len() {
            let b = self.group[i] as usize;
            if (self.least[b], self.rank[b]) >= floor {
                continue;
            }
            // Something unplaced has to come to lie in the way of a buffer that was passed over.
            let top = self.least[b] + self.instance.size[b];
            let mut low = u64::MAX;
            self.steps += self.words as u64;
            for w in 0..self.words {
                let mut bits = self.rows[b * self.words + w] & self.unplaced[w];
                while bits != 0 {
                    let a = w * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let at = self.least[a].max(floor.0);
                    if at < top {
                        low = low.min(at + self.instance.size[a]);
                    }
                }
            }
            if low == u64::MAX {
                return None;
            }
            let low = low.next_multiple_of(self.instance.align[b]);
            if low > self.latest[b] || self.instance.fixed[b] != FREE {
                return None;
            }
            self.low[b] = self.low[b].max(low);
        }
        Some(ceiling)
    }

    /// Whether every section can still take its unplaced buffers; leaves the group sorted by offset and rank.
    fn sections_fit(&mut self, begin: usize) -> bool {
        self.sorted.clear();
        for &b in &self.group[begin..] {
            self.sorted.push((self.low[b as usize], self.rank[b as usize], b));
        }
        self.sorted.sort_unstable();
        let (mut first, mut end) = (u32::MAX, 0);
        for &b in &self.group[begin..] {
            for &(a, z) in self.instance.runs.of(b as usize) {
                first = first.min(a);
                end = end.max(z);
            }
        }
        if first >= end {
            return true;
        }
        self.load[first as usize..end as usize].fill(0);
        let mut touched = (end - first) as usize;
        for &(low, _, b) in self.sorted.iter().rev() {
            let size = self.instance.size[b as usize];
            let mut most = 0;
            for &(first, end) in self.instance.runs.of(b as usize) {
                touched += (end - first) as usize;
                for load in &mut self.load[first as usize..end as usize] {
                    *load += size;
                    most = most.max(*load);
                }
            }
            if low + most > self.capacity {
                self.steps += touched as u64 / 2;
                return false;
            }
        }
        self.steps += touched as u64 / 2;
        true
    }

    /// Places `buffer` at its least offset, searches the rest of the group, and takes it back if that fails.
    fn place(&mut self, begin: usize, buffer: usize) -> Verdict {
        let at = self.least[buffer];
        let top = at + self.instance.size[buffer];
        self.offset[buffer] = at;
        self.unplaced[buffer / 64] &= !(1 << (buffer % 64));
        let mark = self.trail.len();
        let mut verdict = Verdict::None;
        if self.raise_neighbours(buffer, top) {
            let copy = self.group.len();
            for i in begin..copy {
                if self.group[i] as usize != buffer {
                    self.group.push(self.group[i]);
                }
            }
            verdict = self.parts(copy, (at, self.rank[buffer]));
            self.group.truncate(copy);
        }
        if verdict != Verdict::Found {
            while self.trail.len() > mark {
                let Some((b, least)) = self.trail.pop() else { break };
                self.least[b as usize] = least;
            }
            self.unplaced[buffer / 64] |= 1 << (buffer % 64);
        }
        verdict
    }

    /// Raises the unplaced neighbours of `buffer` to `top`; false when one of them cannot be.
    fn raise_neighbours(&mut self, buffer: usize, top: u64) -> bool {
        for w in 0..self.words {
            let mut bits = self.rows[buffer * self.words + w] & self.unplaced[w];
            while bits != 0 {
                let b = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let least = top.next_multiple_of(self.instance.align[b]);
                if least > self.least[b] {
                    if least > self.latest[b] || self.instance.fixed[b] != FREE {
                        return false;
                    }
                    self.trail.push((b as u32, self.least[b]));
                    self.least[b] = least;
                }
            }
        }
        true
    }
}

/// For each buffer, the last one before with the same sections, size and alignment, if neither is fixed.
fn twins(instance: &Instance) -> Vec<Option<u32>> {
    let mut last = std::collections::BTreeMap::new();
    (0..instance.len())
        .map(|b| {
            if instance.fixed[b] != FREE {
                return None;
            }
            let mut near: Vec<u32> = instance.neighbours(b).to_vec();
            near.push(b as u32);
            near.sort_unstable();
            last.insert((near, instance.size[b], instance.tail[b], instance.align[b]), b as u32)
        })
        .collect()
}
