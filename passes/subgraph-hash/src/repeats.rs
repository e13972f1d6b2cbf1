//! Repeated runs of tokens: where a sequence says the same thing again.
//!
//! Two places that hold the same window of tokens vote for their distance. For the distances with most votes, runs of
//! positions whose token comes again at that distance are found in one pass; a run at least as long as the distance is
//! a tandem repeat (Main, Lorentz: "An O(n log n) algorithm for finding all repetitions in a string", J. Algorithms
//! 5(3), 1984, has the general case). The unit that saves most is taken; further occurrences anywhere in the sequence
//! are found by comparing tokens where the hash of a unit-long window agrees.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Tokens of the windows that vote.
const WINDOW: usize = 6;

/// Distances that are looked into, most votes first.
const MAX_DISTANCES: usize = 24;

/// Units whose occurrences everywhere are compared, at most.
const MAX_UNITS: usize = 8;

/// Which units are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Tokens of a unit, at least.
    pub min_length: usize,
    /// Instances of a unit, at least.
    pub min_instances: usize,
    /// Begin units in the middle of where they would begin by themselves.
    pub shifted: bool,
    /// Rank units by what they save wherever they stand, rather than by their own run alone: prefers a layer that stands in
    /// several runs to a stage of layers.
    pub everywhere: bool,
}

/// A repeated unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its length in tokens.
    pub length: usize,
    /// Where its instances start, ascending; they do not overlap.
    pub starts: Vec<usize>,
}

impl Unit {
    /// Tokens that one definition in the place of all instances saves.
    pub(crate) fn saving(&self) -> usize {
        self.length * (self.starts.len() - 1)
    }
}

/// A run: `tokens[i] == tokens[i + distance]` for `length` positions from `start` on, and no further.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: usize,
    length: usize,
    distance: usize,
}

impl Run {
    fn unit_length(&self) -> usize {
        self.length.min(self.distance)
    }

    /// What its own instances save if the unit begins at the start of the run.
    fn saving(&self) -> usize {
        self.unit_length() * (self.length / self.distance).max(1)
    }
}

/// The unit that saves most, if there is one. `cuts[i]` says how bad it is to begin a unit at position `i`.
///
/// Among the beginnings with the least cut the one with most instances is taken, then the first.
pub(crate) fn best_unit(tokens: &[u32], cuts: &[u32], wanted: Wanted) -> Option<Unit> {
    let mut runs: Vec<Run> = Vec::new();
    for distance in distances(tokens) {
        runs_at(tokens, distance, &mut runs);
    }
    runs.retain(|r| r.unit_length() >= wanted.min_length);
    runs.sort_by_key(|r| (Reverse(r.saving()), r.start, r.distance));
    let enough =
        |unit: &Unit| unit.starts.len() >= wanted.min_instances.max(2) && unit.saving() >= wanted.min_length;
    // The best run by its own instances; occurrences elsewhere only add to it.
    let mut units = runs.iter().filter_map(|run| unit_of(tokens, cuts, wanted, *run)).filter(enough);
    if !wanted.everywhere {
        return units.next();
    }
    units
        .take(MAX_UNITS)
        .enumerate()
        .max_by_key(|(i, unit)| (unit.saving(), Reverse(*i)))
        .map(|(_, unit)| unit)
}

/// Distances between equal windows, most votes first.
fn distances(tokens: &[u32]) -> Vec<usize> {
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    let mut next: HashMap<u64, usize> = HashMap::new();
    for (i, hash) in window_hashes(tokens, WINDOW).into_iter().enumerate().rev() {
        if let Some(later) = next.insert(hash, i) {
            *votes.entry(later - i).or_default() += 1;
        }
    }
    let mut ranked: Vec<(usize, usize)> = votes.into_iter().collect();
    ranked.sort_by_key(|(distance, votes)| (Reverse(*votes), *distance));
    ranked.into_iter().take(MAX_DISTANCES).map(|(distance, _)| distance).collect()
}

/// Rolling hashes of all windows of this many tokens (Karp, Rabin 1987, modulo 2⁶⁴).
fn window_hashes(tokens: &[u32], length: usize) -> Vec<u64> {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    if length == 0 || tokens.len() < length {
        return Vec::new();
    }
    // Tokens are spread over 64 bits first, since the powers of an odd base say little of low bits.
    let spread = |t: u32| (u64::from(t) + 1).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
    let top = (1..length).fold(1u64, |p, _| p.wrapping_mul(BASE));
    let mut hash = tokens[..length].iter().fold(0u64, |h, t| h.wrapping_mul(BASE).wrapping_add(spread(*t)));
    let mut out = vec![hash];
    for i in length..tokens.len() {
        let without = hash.wrapping_sub(spread(tokens[i - length]).wrapping_mul(top));
        hash = without.wrapping_mul(BASE).wrapping_add(spread(tokens[i]));
        out.push(hash);
    }
    out
}

fn runs_at(tokens: &[u32], distance: usize, runs: &mut Vec<Run>) {
    let mut start = 0;
    for i in 0..=tokens.len().saturating_sub(distance) {
        if i + distance < tokens.len() && tokens[i] == tokens[i + distance] {
            continue;
        }
        if i > start {
            runs.push(Run { start, length: i - start, distance });
        }
        start = i + 1;
    }
}

/// The unit of a run at its best beginning, with all its occurrences.
fn unit_of(tokens: &[u32], cuts: &[u32], wanted: Wanted, run: Run) -> Option<Unit> {
    let length = run.unit_length();
    if run.length < run.distance {
        // Both copies begin where they begin; there is nothing to choose, and no middle to shift to.
        let unit = Unit { length, starts: occurrences(tokens, run.start, length) };
        return (!wanted.shifted).then_some(unit);
    }
    let first = run.start;
    let end = run.start + run.length + run.distance;
    let instances = |at: usize| (end - at) / length;
    let most = instances(first);
    // Beginning elsewhere may cost an instance at the edges, but never the last pair.
    let enough = |at: usize| instances(at) >= wanted.min_instances.max(2) && instances(at) + 1 >= most;
    let cut = |at: usize| cuts.get(at + length).copied().unwrap_or(u32::MAX);
    let least = (first..first + length)
        .filter(|at| enough(*at))
        .min_by_key(|at| (cut(*at), most - instances(*at), *at))?;
    let mut at = least;
    if wanted.shifted {
        // Distance around the unit from the ordinary beginning; the middle half is good enough.
        let away = |b: usize| {
            let d = (b + length - least) % length;
            d.min(length - d)
        };
        at = (first..first + length)
            .filter(|b| enough(*b) && away(*b) >= length / 4)
            .min_by_key(|b| (cut(*b), length - away(*b), *b))?;
    }
    Some(Unit { length, starts: occurrences(tokens, at, length) })
}

/// Where `tokens[at..at + length]` stands: from `at` on in steps that do not overlap, and in the gaps before.
fn occurrences(tokens: &[u32], at: usize, length: usize) -> Vec<usize> {
    let hashes = window_hashes(tokens, length);
    let unit = &tokens[at..at + length];
    let is_there = |i: usize| hashes[i] == hashes[at] && &tokens[i..i + length] == unit;
    let mut starts = Vec::new();
    let mut i = at;
    while i < hashes.len() {
        if is_there(i) {
            starts.push(i);
            i += length;
        } else {
            i += 1;
        }
    }
    let mut end = at;
    for i in (0..at).rev() {
        if i + length <= end && is_there(i) {
            starts.push(i);
            end = i;
        }
    }
    starts.sort_unstable();
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { min_length: 3, min_instances: 2, shifted: false, everywhere: false };

    fn find(text: &str, wanted: Wanted) -> Option<(usize, Vec<usize>)> {
        // Capitals and digits are tokens that come once.
        let tokens: Vec<u32> = text
            .bytes()
            .enumerate()
            .map(|(i, b)| if b.is_ascii_lowercase() { u32::from(b) } else { 1000 + i as u32 })
            .collect();
        best_unit(&tokens, &vec![0; tokens.len() + 1], wanted).map(|u| (u.length, u.starts))
    }

    #[test]
    fn tandem_repeats_are_found_with_their_smallest_period() {
        assert_eq!(find("XabcdefgabcdefgabcdefgabcdefgabcdefgY", WANTED), Some((7, vec![1, 8, 15, 22, 29])));
        assert_eq!(find("XYZ", WANTED), None);
        assert_eq!(find("", WANTED), None);
    }

    #[test]
    fn occurrences_elsewhere_are_found_on_both_sides() {
        let text = "abcdefghXYabcdefghabcdefghabcdefghZabcdefgh";
        assert_eq!(find(text, WANTED), Some((8, vec![0, 10, 18, 26, 35])));
    }

    #[test]
    fn a_pair_that_is_no_tandem_is_found() {
        assert_eq!(find("XabcdefghijkYZabcdefghijkX", WANTED), Some((11, vec![1, 14])));
    }

    #[test]
    fn layers_of_several_runs_win_over_stages_if_they_count_everywhere() {
        let stage = format!("X{}", "abcdefg".repeat(5)).to_lowercase();
        let text = format!("{stage}{stage}Y{}", "abcdefg".repeat(6));
        assert_eq!(find(&text, WANTED).map(|(length, _)| length), Some(stage.len()));
        let everywhere = find(&text, Wanted { everywhere: true, ..WANTED });
        assert_eq!(everywhere.map(|(length, starts)| (length, starts.len())), Some((7, 16)));
    }

    #[test]
    fn small_repeats_inside_a_unit_do_not_win_over_the_unit() {
        let layer = "abcdefgabcdefgabcdefghijklmnopqr";
        let text = format!("X{}Y", layer.repeat(12));
        assert_eq!(
            find(&text, WANTED).map(|(length, starts)| (length, starts.len())),
            Some((layer.len(), 12))
        );
    }

    #[test]
    fn units_begin_at_the_least_cut_and_shifted_ones_far_from_it() {
        let layer: Vec<u32> = (0..10).collect();
        let tokens: Vec<u32> = (0..5).flat_map(|_| layer.clone()).collect();
        let mut cuts = vec![3; tokens.len() + 1];
        for i in 0..5 {
            (cuts[i * 10 + 2], cuts[i * 10 + 6]) = (1, 1);
        }
        let unit = best_unit(&tokens, &cuts, WANTED).expect("a unit");
        assert_eq!((unit.length, unit.starts), (10, vec![2, 12, 22, 32]));
        let unit = best_unit(&tokens, &cuts, Wanted { shifted: true, ..WANTED }).expect("a unit");
        assert_eq!((unit.length, unit.starts), (10, vec![6, 16, 26, 36]));
    }

    #[test]
    fn found_units_are_what_they_say_on_random_sequences() {
        let mut state = 7u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..300 {
            let (length, letters) = (random(120) as usize, 1 + random(4));
            let tokens: Vec<u32> = (0..length).map(|_| random(letters) as u32).collect();
            let cuts: Vec<u32> = (0..=length).map(|_| random(5) as u32).collect();
            for shifted in [false, true] {
                let Some(unit) = best_unit(&tokens, &cuts, Wanted { shifted, ..WANTED }) else { continue };
                assert!(unit.length >= 3 && unit.starts.len() >= 2);
                assert!(unit.starts.windows(2).all(|w| w[0] + unit.length <= w[1]), "{unit:?}");
                let text = |s: usize| &tokens[s..s + unit.length];
                assert!(unit.starts.iter().all(|s| text(*s) == text(unit.starts[0])), "{unit:?}");
            }
        }
    }
}
