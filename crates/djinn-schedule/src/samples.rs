//! Graphs of known networks to measure and test with, made without outside randomness.
//!
//! The times and shares of nodes are of the order that such operators have on a data-centre GPU at batch 1.

use crate::{Dag, Node};

/// Numbers from a linear congruential generator (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// A graph under construction: its edges go from smaller to greater numbers.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// What needs what: the first node comes before the second.
    pub edges: Vec<(usize, usize)>,
    /// How long each node takes on its own, and the part of the device that it uses.
    pub nodes: Vec<Node>,
}

impl Net {
    /// Adds a node that needs `inputs`; gives its number.
    pub fn node(&mut self, inputs: &[usize], microseconds: f64, share: f64) -> usize {
        let node = self.nodes.len();
        self.edges.extend(inputs.iter().map(|&i| (i, node)));
        self.nodes.push(Node::new(microseconds * 1e-6, share));
        node
    }

    /// Adds so many nodes after `input`, each needing the one before; gives the last.
    pub fn chain(&mut self, input: usize, nodes: usize, microseconds: f64, share: f64) -> usize {
        (0..nodes).fold(input, |last, _| self.node(&[last], microseconds, share))
    }

    /// The partial order of the nodes.
    pub fn dag(&self) -> Dag {
        Dag::new(self.nodes.len(), &self.edges).unwrap_or_else(|e| unreachable!("edges go up: {e}"))
    }
}

/// Inception-v3 with convolutions fused with their activations: 119 nodes, 153 edges, as in IOS.
pub fn inception_v3() -> Net {
    let mut net = Net::default();
    let share = 0.35;
    let first = net.node(&[], 20.0, 0.9);
    let mut x = net.chain(first, 6, 20.0, 0.9);
    let branches = |net: &mut Net, x: usize, lengths: &[usize]| {
        let ends: Vec<usize> = lengths.iter().map(|&l| net.chain(x, l, 12.0, share)).collect();
        net.node(&ends, 3.0, 0.8)
    };
    for _ in 0..3 {
        x = branches(&mut net, x, &[1, 2, 3, 2]);
    }
    x = branches(&mut net, x, &[1, 3, 1]);
    for _ in 0..4 {
        x = branches(&mut net, x, &[1, 3, 5, 2]);
    }
    x = branches(&mut net, x, &[2, 4, 1]);
    for _ in 0..2 {
        let one = net.chain(x, 1, 12.0, share);
        let three = net.chain(x, 1, 12.0, share);
        let (three_a, three_b) = (net.chain(three, 1, 9.0, share), net.chain(three, 1, 9.0, share));
        let double = net.chain(x, 2, 12.0, share);
        let (double_a, double_b) = (net.chain(double, 1, 9.0, share), net.chain(double, 1, 9.0, share));
        let pool = net.chain(x, 2, 8.0, share);
        x = net.node(&[one, three_a, three_b, double_a, double_b, pool], 3.0, 0.8);
    }
    net.node(&[x], 4.0, 0.5);
    net
}

/// Cells in the manner of NASNet-A: each reads the two cells before it; five sums of two separable
/// convolutions (four nodes each), poolings or identities.
pub fn nasnet_like(cells: usize) -> Net {
    let mut net = Net::default();
    let stem = net.node(&[], 15.0, 0.9);
    let (mut before, mut last) = (stem, stem);
    for _ in 0..cells {
        let left = net.chain(before, 2, 5.0, 0.3);
        let right = net.chain(last, 2, 5.0, 0.3);
        let separable = |net: &mut Net, x: usize, us: f64| {
            let first = net.chain(x, 2, us, 0.2);
            net.chain(first, 2, us, 0.2)
        };
        let mut sums = Vec::new();
        let pairs = [(right, 6.0, left, 9.0), (left, 9.0, left, 6.0)];
        for (a, a_us, b, b_us) in pairs {
            let (a, b) = (separable(&mut net, a, a_us), separable(&mut net, b, b_us));
            sums.push(net.node(&[a, b], 2.0, 0.3));
        }
        let pooled = net.node(&[right], 3.0, 0.3);
        sums.push(net.node(&[pooled, left], 2.0, 0.3));
        let (p, q) = (net.node(&[left], 3.0, 0.3), net.node(&[left], 3.0, 0.3));
        sums.push(net.node(&[p, q], 2.0, 0.3));
        let (c, first) = (separable(&mut net, sums[0], 6.0), sums[0]);
        sums.push(net.node(&[c, right, first], 2.0, 0.3));
        let cell = net.node(&sums, 4.0, 0.6);
        (before, last) = (last, cell);
    }
    net.node(&[last], 5.0, 0.5);
    net
}

/// Stages of Watts-Strogatz graphs as in RandWire: rings of 32 nodes with 4 neighbours, rewired
/// with probability 3/4, edges from smaller to greater numbers.
pub fn rand_wire(stages: usize, seed: u64) -> Net {
    let (ring, near) = (32, 4);
    let mut random = Random(seed);
    let mut net = Net::default();
    let mut input = net.node(&[], 15.0, 0.8);
    for _ in 0..stages {
        let mut edges = Vec::new();
        for step in 1..=near / 2 {
            for u in 0..ring {
                let v = if random.below(4) < 3 { random.below(ring) } else { (u + step) % ring };
                edges.push((u.min(v), u.max(v)));
            }
        }
        let mut nodes: Vec<usize> = Vec::new();
        for v in 0..ring {
            let from: Vec<usize> =
                edges.iter().filter(|(a, b)| *b == v && a != b).map(|e| nodes[e.0]).collect();
            let from = if from.is_empty() { vec![input] } else { from };
            let sum = net.node(&from, 3.0, 0.3);
            nodes.push(net.chain(sum, 1, 14.0, 0.3));
        }
        let ends: Vec<usize> = (0..ring).filter(|&v| !edges.iter().any(|(a, b)| *a == v && a != b)).collect();
        let ends: Vec<usize> = ends.iter().map(|&v| nodes[v]).collect();
        input = net.node(&ends, 4.0, 0.6);
    }
    net
}

/// A transformer's decoder: chains with a fork of three small nodes in each layer.
pub fn transformer(layers: usize) -> Net {
    let mut net = Net::default();
    let mut x = net.node(&[], 5.0, 1.0);
    for _ in 0..layers {
        let norm = net.node(&[x], 3.0, 0.5);
        let qkv = net.node(&[norm], 20.0, 1.0);
        let [q, k, v] = [2.0, 2.0, 1.0].map(|us| net.node(&[qkv], us, 0.3));
        let attention = net.node(&[q, k, v], 15.0, 0.8);
        let out = net.node(&[attention, x], 10.0, 1.0);
        let norm = net.node(&[out], 3.0, 0.5);
        let up = net.node(&[norm], 40.0, 1.0);
        x = net.node(&[up, out], 40.0, 1.0);
    }
    net
}
