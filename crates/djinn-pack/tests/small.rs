//! Small random problems against brute force, in both forms.

use djinn_pack::{Buffer, Conflicts, Fit, Limits, Problem, baseline, check, fit, pack};

/// A linear congruential generator, good enough for test problems.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn overlap(a: &Buffer, b: &Buffer) -> bool {
    a.lower < b.upper && b.lower < a.upper
}

/// A random problem with `n` buffers in one of a few styles.
fn random_buffers(random: &mut Random, n: usize) -> Vec<Buffer> {
    let style = random.below(6);
    let mut buffers: Vec<Buffer> = Vec::new();
    for _ in 0..n {
        let lower = random.below(8) as i64 - 4;
        let upper = lower + 1 + random.below(6) as i64;
        let mut buffer = Buffer::new(lower, upper, random.below(if style == 0 { 4 } else { 9 }));
        match style {
            1 => buffer.alignment = 1 << random.below(4),
            2 => buffer.alignment = 4,
            3 => buffer.size *= 4,
            4 if random.below(4) == 0 => buffer.offset = Some(random.below(12)),
            _ => {}
        }
        let clashes = |b: &Buffer| {
            let both = b.offset.zip(buffer.offset);
            overlap(b, &buffer) && both.is_some_and(|(o, p)| o < p + buffer.size && p < o + b.size)
        };
        if buffers.iter().any(clashes) {
            buffer.offset = None;
        }
        buffers.push(buffer);
    }
    buffers
}

/// The least height, by trying every order with every buffer as low as it can stand.
fn brute_force(buffers: &[Buffer], conflict: &dyn Fn(usize, usize) -> bool) -> u64 {
    fn place(
        buffers: &[Buffer],
        conflict: &dyn Fn(usize, usize) -> bool,
        placed: &mut Vec<Option<u64>>,
        height: u64,
        best: &mut u64,
    ) {
        if height >= *best {
            return;
        }
        if placed.iter().all(Option::is_some) {
            *best = height;
            return;
        }
        for i in 0..buffers.len() {
            if placed[i].is_some() {
                continue;
            }
            let clear = |at: u64, placed: &[Option<u64>]| {
                (0..buffers.len()).all(|j| {
                    placed[j].is_none_or(|o| {
                        !conflict(i, j)
                            || buffers[i].size == 0
                            || buffers[j].size == 0
                            || at + buffers[i].size <= o
                            || o + buffers[j].size <= at
                    })
                })
            };
            let at = (0..).step_by(buffers[i].alignment as usize).find(|&at| clear(at, placed));
            let at = at.expect("there is always room above");
            placed[i] = Some(at);
            let end = if buffers[i].size > 0 { at + buffers[i].size } else { 0 };
            place(buffers, conflict, placed, height.max(end), best);
            placed[i] = None;
        }
    }
    let mut placed: Vec<Option<u64>> = buffers.iter().map(|b| b.offset).collect();
    let fixed = buffers.iter().filter(|b| b.size > 0).filter_map(|b| b.offset.map(|o| o + b.size)).max();
    let mut best = u64::MAX;
    place(buffers, conflict, &mut placed, fixed.unwrap_or(0), &mut best);
    best
}

fn compare(problem: &Problem, least: u64, case: u64) {
    let found = pack(problem, &Limits::default());
    check(problem, &found.offsets, found.height).unwrap_or_else(|e| panic!("case {case}: {e}"));
    assert_eq!(found.height, least, "case {case}: {problem:?}");
    assert!(found.lower_bound <= least, "case {case}");
    assert_eq!(pack(problem, &Limits::default()), found, "case {case}: equal problems give equal packings");
    for offsets in [baseline::tflite_greedy_by_size(problem), baseline::onnxruntime_mem_pattern(problem)] {
        let height = baseline::height(problem, &offsets);
        check(problem, &offsets, height).unwrap_or_else(|e| panic!("case {case}: {e}"));
        let nothing = Limits { climb_steps: 0, search_steps: 0 };
        assert!(pack(problem, &nothing).height <= height, "case {case}: above a baseline");
    }
    match fit(problem, least, &Limits::default()) {
        Fit::Packed(offsets) => {
            check(problem, &offsets, least).unwrap_or_else(|e| panic!("case {case}: {e}"))
        }
        other => panic!("case {case}: {other:?}"),
    }
    if least > 0 {
        let less = fit(problem, least - 1, &Limits::default());
        assert!(matches!(less, Fit::Impossible { .. }), "case {case}: {less:?}");
    }
}

#[test]
fn intervals_are_packed_as_low_as_possible() {
    let mut random = Random(1);
    for case in 0..600 {
        let n = 1 + random.below(6) as usize;
        let buffers = random_buffers(&mut random, n);
        let least = brute_force(&buffers, &|i, j| overlap(&buffers[i], &buffers[j]));
        compare(&Problem::intervals(buffers.clone()).expect("valid"), least, case);
    }
}

#[test]
fn conflicts_are_packed_as_low_as_possible() {
    let mut random = Random(2);
    for case in 0..600 {
        let n = 1 + random.below(6) as usize;
        let mut buffers = random_buffers(&mut random, n);
        buffers.iter_mut().for_each(|b| b.offset = None);
        let dense = 1 + random.below(4);
        let mut pairs = Vec::new();
        for i in 0..n {
            for j in 0..i {
                if random.below(4) < dense {
                    pairs.push((i, j));
                }
            }
        }
        let least = brute_force(&buffers, &|i, j| pairs.contains(&(i.max(j), i.min(j))));
        let conflicts = Conflicts::from_pairs(n, &pairs).expect("valid");
        compare(&Problem::with_conflicts(buffers, conflicts).expect("valid"), least, case);
    }
}

#[test]
fn both_forms_agree() {
    let mut random = Random(3);
    for case in 0..60 {
        let n = 7 + random.below(5) as usize;
        let buffers = random_buffers(&mut random, n);
        let mut rows = vec![0u64; n];
        for i in 0..n {
            for j in 0..i {
                if overlap(&buffers[i], &buffers[j]) {
                    rows[i] |= 1 << j;
                }
            }
        }
        let conflicts = Conflicts::from_rows(n, 1, &rows).expect("valid");
        let one = pack(&Problem::intervals(buffers.clone()).expect("valid"), &Limits::default());
        let other = pack(&Problem::with_conflicts(buffers, conflicts).expect("valid"), &Limits::default());
        assert_eq!(one.height, other.height, "case {case}");
    }
}
