//! Graphs that the tests share, made without outside randomness.
#![allow(dead_code, reason = "not every test uses every graph")]

use djinn_schedule::Dag;

/// A small deterministic generator (Knuth's MMIX constants).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 31) as f64
    }
}

/// Any graph whose edges go up.
pub(crate) fn random_dag(random: &mut Random, nodes: usize, percent: usize) -> Dag {
    let mut edges = Vec::new();
    for v in 0..nodes {
        for u in 0..v {
            if random.below(100) < percent {
                edges.push((u, v));
            }
        }
    }
    Dag::new(nodes, &edges).expect("edges go up")
}
