//! The problem as the solvers see it: whole units instead of bytes, neighbours, sections, a lower bound.
//!
//! Buffers of no bytes are left out. The *unit* divides every size (rounded up to the alignment that all
//! buffers share), every larger alignment and every fixed offset; a best packing needs no other offsets
//! than multiples of it. A *section* is a set of buffers that conflict with each other: the maximal sets of
//! buffers that are live together, or, when conflicts are given one by one, cliques found greedily.

use crate::problem::{Lifetimes, Problem};

/// The offset of a buffer that may stand anywhere.
pub(crate) const FREE: u64 = u64::MAX;

/// More ordered pairs of conflicting buffers than this are not listed (4 bytes each).
pub(crate) const MAX_LISTED: usize = 1 << 26;

/// Sections of the highest load that are looked at for the bytes that rounding added.
const ROUNDED_SECTIONS: usize = 64;

/// Cliques that are looked for when conflicts are given one by one.
const MAX_CLIQUES: usize = 512;

/// The most steps that the search for cliques takes; a step is a word of 64 buffers.
const CLIQUE_STEPS: usize = 4_000_000;

/// Lists of different lengths, one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists<T> {
    start: Vec<usize>,
    items: Vec<T>,
}

impl<T: Copy> Lists<T> {
    /// No lists yet.
    pub(crate) fn new() -> Self {
        Self { start: vec![0], items: Vec::new() }
    }

    /// Adds a list.
    pub(crate) fn push(&mut self, list: impl IntoIterator<Item = T>) {
        self.items.extend(list);
        self.start.push(self.items.len());
    }

    /// The list of index `i`.
    pub(crate) fn of(&self, i: usize) -> &[T] {
        &self.items[self.start[i]..self.start[i + 1]]
    }
}

/// Buffers to place, numbered from zero, with everything measured in units.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Bytes in a unit.
    pub(crate) unit: u64,
    /// The index of each buffer in the problem.
    pub(crate) original: Vec<u32>,
    /// The size of each buffer in units, rounded up.
    pub(crate) size: Vec<u64>,
    /// The bytes that rounding added to each buffer.
    pub(crate) tail: Vec<u64>,
    /// The alignment of each buffer in units.
    pub(crate) align: Vec<u64>,
    /// The fixed offset of each buffer in units, or [`FREE`].
    pub(crate) fixed: Vec<u64>,
    /// How long each buffer is live, or how many others it conflicts with.
    pub(crate) width: Vec<u64>,
    /// The buffers that conflict with each buffer; `None` when they are too many.
    pub(crate) neighbours: Option<Lists<u32>>,
    /// The sections of each buffer, as ranges.
    pub(crate) runs: Lists<(u32, u32)>,
    /// The number of sections.
    pub(crate) sections: usize,
    /// Buffers in order of their first moment, or of their index.
    pub(crate) births: Vec<u32>,
    /// Buffers in order of their end; empty when conflicts are given one by one.
    pub(crate) deaths: Vec<u32>,
    /// No packing is lower than this, in bytes.
    pub(crate) bound: u64,
}

impl Instance {
    /// Prepares `problem`.
    pub(crate) fn new(problem: &Problem) -> Self {
        let mut instance = Self::scaled(problem);
        match problem.lifetimes() {
            Lifetimes::Intervals => instance.prepare_intervals(problem),
            Lifetimes::Conflicts(_) => instance.prepare_conflicts(problem),
        }
        let ends = instance.fixed.iter().enumerate().filter(|&(_, &f)| f != FREE);
        let highest = ends.map(|(b, &f)| instance.end(b, f)).max().unwrap_or(0);
        instance.bound = instance.bound.max(highest);
        instance
    }

    /// The number of buffers.
    pub(crate) fn len(&self) -> usize {
        self.size.len()
    }

    /// The packing problem of some buffers that conflict with no others.
    pub(crate) fn part(&self, members: &[u32]) -> Self {
        let mut place = vec![u32::MAX; self.len()];
        for (b, &m) in members.iter().enumerate() {
            place[m as usize] = b as u32;
        }
        let mut used = vec![0u32; self.sections + 1];
        for &m in members {
            for &(first, end) in self.runs.of(m as usize) {
                used[first as usize + 1..=end as usize].fill(1);
            }
        }
        for s in 0..self.sections {
            used[s + 1] += used[s];
        }
        let (mut runs, mut near) = (Lists::new(), Lists::new());
        for &m in members {
            runs.push(self.runs.of(m as usize).iter().map(|&(a, z)| (used[a as usize], used[z as usize])));
            near.push(self.neighbours(m as usize).iter().map(|&a| place[a as usize]));
        }
        let pick = |list: &[u64]| members.iter().map(|&m| list[m as usize]).collect::<Vec<u64>>();
        let keep =
            |list: &[u32]| list.iter().map(|&b| place[b as usize]).filter(|&b| b != u32::MAX).collect();
        Self {
            unit: self.unit,
            original: members.to_vec(),
            size: pick(&self.size),
            tail: pick(&self.tail),
            align: pick(&self.align),
            fixed: pick(&self.fixed),
            width: pick(&self.width),
            neighbours: Some(near),
            runs,
            sections: used[self.sections] as usize,
            births: keep(&self.births),
            deaths: keep(&self.deaths),
            bound: 0,
        }
    }

    /// The conflicting buffers of `buffer`; none when they are not listed.
    pub(crate) fn neighbours(&self, buffer: usize) -> &[u32] {
        self.neighbours.as_ref().map_or(&[], |lists| lists.of(buffer))
    }

    /// The bytes that `buffer` takes.
    pub(crate) fn bytes(&self, buffer: usize) -> u64 {
        self.size[buffer] * self.unit - self.tail[buffer]
    }

    /// The end in bytes of `buffer` when it stands at `offset` units.
    pub(crate) fn end(&self, buffer: usize, offset: u64) -> u64 {
        (offset + self.size[buffer]) * self.unit - self.tail[buffer]
    }

    /// The height in bytes of a packing given in units.
    pub(crate) fn height(&self, offsets: &[u64]) -> u64 {
        offsets.iter().enumerate().map(|(b, &o)| self.end(b, o)).max().unwrap_or(0)
    }

    /// The highest offset in units at which `buffer` ends within `capacity` bytes.
    pub(crate) fn latest(&self, buffer: usize, capacity: u64) -> Option<u64> {
        capacity.checked_sub(self.bytes(buffer)).map(|room| room / self.unit)
    }

    /// The sum of the sizes of the buffers of each section.
    pub(crate) fn loads(&self) -> Vec<u64> {
        let mut loads = vec![0; self.sections];
        for b in 0..self.len() {
            for &(first, end) in self.runs.of(b) {
                for load in &mut loads[first as usize..end as usize] {
                    *load += self.size[b];
                }
            }
        }
        loads
    }

    /// Sizes, alignments and fixed offsets in units; nothing about conflicts yet.
    fn scaled(problem: &Problem) -> Self {
        let all = problem.buffers();
        let original: Vec<u32> = (0..all.len() as u32).filter(|&i| all[i as usize].size > 0).collect();
        let buffers = || original.iter().map(|&i| &all[i as usize]);
        let common = buffers().map(|b| b.alignment).min().unwrap_or(1);
        let rounded: Vec<u64> = buffers().map(|b| b.size.next_multiple_of(common)).collect();
        let mut unit = 0;
        for (b, &size) in buffers().zip(&rounded) {
            unit = gcd(gcd(unit, size), b.offset.unwrap_or(0));
            if b.alignment > common {
                unit = gcd(unit, b.alignment);
            }
        }
        let unit = unit.max(1);
        Self {
            unit,
            tail: buffers().zip(&rounded).map(|(b, &size)| size - b.size).collect(),
            align: buffers().map(|b| (b.alignment / unit).max(1)).collect(),
            fixed: buffers().map(|b| b.offset.map_or(FREE, |o| o / unit)).collect(),
            size: rounded.iter().map(|&size| size / unit).collect(),
            width: vec![0; original.len()],
            original,
            neighbours: None,
            runs: Lists::new(),
            sections: 0,
            births: Vec::new(),
            deaths: Vec::new(),
            bound: 0,
        }
    }

    /// Sections, neighbours and the highest load, by a sweep over time.
    fn prepare_intervals(&mut self, problem: &Problem) {
        let n = self.len();
        let buffer = |b: &u32| &problem.buffers()[self.original[*b as usize] as usize];
        let mut births: Vec<u32> = (0..n as u32).collect();
        let mut deaths = births.clone();
        births.sort_by_key(|b| buffer(b).lower);
        deaths.sort_by_key(|b| buffer(b).upper);

        let mut ranges = vec![(0u32, 0u32); n];
        let mut load = 0;
        let mut most = 0;
        let mut heaviest = Vec::new();
        let (mut section, mut grown, mut ended) = (0, false, 0);
        let (mut live, mut pairs) = (0usize, 0usize);
        for born in births.iter().map(Some).chain([None]) {
            while ended < n && born.is_none_or(|b| buffer(&deaths[ended]).upper <= buffer(b).lower) {
                if grown {
                    if load > most {
                        most = load;
                        heaviest.clear();
                    }
                    if load == most && heaviest.len() < ROUNDED_SECTIONS {
                        heaviest.push(section);
                    }
                    section += 1;
                    grown = false;
                }
                let b = deaths[ended] as usize;
                ranges[b].1 = section;
                load -= self.size[b];
                live -= 1;
                ended += 1;
            }
            if let Some(&b) = born {
                ranges[b as usize].0 = section;
                load += self.size[b as usize];
                grown = true;
                pairs += 2 * live;
                live += 1;
            }
        }
        for &range in &ranges {
            self.runs.push([range]);
        }
        self.sections = section as usize;
        self.bound =
            heaviest.iter().map(|&s| most * self.unit - self.widest_tail(&ranges, s)).max().unwrap_or(0);
        self.width = (0..n as u32).map(|b| buffer(&b).upper.abs_diff(buffer(&b).lower)).collect();
        self.births = births;
        self.deaths = deaths;
        if pairs <= MAX_LISTED {
            self.neighbours = Some(self.list_neighbours(&ranges, pairs));
        }
    }

    /// The most bytes that rounding added to a buffer of `section`.
    fn widest_tail(&self, ranges: &[(u32, u32)], section: u32) -> u64 {
        let inside = |&(b, _): &(usize, &u64)| ranges[b].0 <= section && section < ranges[b].1;
        self.tail.iter().enumerate().filter(inside).map(|(_, &tail)| tail).max().unwrap_or(0)
    }

    /// Lists who is live together with whom; `pairs` is the number of ordered pairs.
    fn list_neighbours(&self, ranges: &[(u32, u32)], pairs: usize) -> Lists<u32> {
        let n = self.len();
        let mut degree = vec![0usize; n + 1];
        let sweep = |visit: &mut dyn FnMut(usize, &[u32])| {
            let mut live: Vec<u32> = Vec::new();
            let mut section = 0;
            for &b in &self.births {
                let first = ranges[b as usize].0;
                if first > section {
                    section = first;
                    live.retain(|&a| ranges[a as usize].1 > section);
                }
                visit(b as usize, &live);
                live.push(b);
            }
        };
        sweep(&mut |b, live| {
            degree[b + 1] += live.len();
            for &a in live {
                degree[a as usize + 1] += 1;
            }
        });
        for b in 0..n {
            degree[b + 1] += degree[b];
        }
        let start = degree.clone();
        let mut items = vec![0u32; pairs];
        sweep(&mut |b, live| {
            for &a in live {
                items[degree[a as usize]] = b as u32;
                degree[a as usize] += 1;
                items[degree[b]] = a;
                degree[b] += 1;
            }
        });
        Lists { start, items }
    }

    /// Neighbours, greedily found cliques as sections, and their highest load.
    fn prepare_conflicts(&mut self, problem: &Problem) {
        let Lifetimes::Conflicts(conflicts) = problem.lifetimes() else { return };
        let n = self.len();
        let mut place = vec![u32::MAX; problem.buffers().len()];
        for (b, &i) in self.original.iter().enumerate() {
            place[i as usize] = b as u32;
        }
        let mut lists = Lists::new();
        for &i in &self.original {
            let near = conflicts.of(i as usize).iter().map(|&j| place[j as usize]);
            lists.push(near.filter(|&j| j != u32::MAX));
        }
        self.width = (0..n).map(|b| lists.of(b).len() as u64).collect();
        let cliques = self.find_cliques(&lists);
        let mut members: Vec<Vec<(u32, u32)>> = vec![Vec::new(); n];
        for (s, clique) in cliques.iter().enumerate() {
            let load: u64 = clique.iter().map(|&b| self.size[b as usize]).sum();
            let tail = clique.iter().map(|&b| self.tail[b as usize]).max().unwrap_or(0);
            self.bound = self.bound.max(load * self.unit - tail);
            for &b in clique {
                members[b as usize].push((s as u32, s as u32 + 1));
            }
        }
        for list in members {
            self.runs.push(list);
        }
        self.sections = cliques.len();
        self.births = (0..n as u32).collect();
        self.neighbours = Some(lists);
    }

    /// Cliques of high load, each grown from one buffer by the heaviest neighbourhoods or sizes.
    fn find_cliques(&self, lists: &Lists<u32>) -> Vec<Vec<u32>> {
        let n = self.len();
        let weight: Vec<u64> = (0..n)
            .map(|b| self.size[b] + lists.of(b).iter().map(|&a| self.size[a as usize]).sum::<u64>())
            .collect();
        let mut seeds: Vec<u32> = (0..n as u32).collect();
        seeds.sort_by_key(|&b| std::cmp::Reverse(weight[b as usize]));
        seeds.truncate(MAX_CLIQUES);
        let mut cliques = Vec::new();
        let mut steps = 0;
        let mut common = vec![0u32; n];
        for &seed in &seeds {
            for by_size in [false, true] {
                let mut clique = vec![seed];
                let mut near: Vec<u32> = lists.of(seed as usize).to_vec();
                near.sort_by_key(|&b| {
                    let b = b as usize;
                    std::cmp::Reverse(if by_size {
                        (self.size[b], weight[b])
                    } else {
                        (weight[b], self.size[b])
                    })
                });
                common.fill(0);
                for b in near {
                    // `common` counts how many members after the seed a buffer conflicts with.
                    if common[b as usize] as usize + 1 == clique.len() {
                        clique.push(b);
                        for &a in lists.of(b as usize) {
                            common[a as usize] += 1;
                        }
                        steps += lists.of(b as usize).len() / 8;
                    }
                }
                steps += n / 8;
                clique.sort_unstable();
                cliques.push(clique);
            }
            if steps > CLIQUE_STEPS {
                break;
            }
        }
        cliques.sort_unstable();
        cliques.dedup();
        cliques
    }
}

/// The greatest common divisor, where zero is divided by everything.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
