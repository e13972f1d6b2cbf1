//! Small graph algorithms on numbered nodes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The nodes so that every edge goes forward, smallest number first among those ready; or a node on a cycle.
pub(crate) fn topological_order(n: usize, edges: &[(usize, usize)]) -> Result<Vec<usize>, usize> {
    let mut waiting = vec![0usize; n];
    let mut successors = vec![Vec::new(); n];
    for &(a, b) in edges {
        waiting[b] += 1;
        successors[a].push(b);
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..n).filter(|&v| waiting[v] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(n);
    while let Some(Reverse(v)) = ready.pop() {
        order.push(v);
        for &w in &successors[v] {
            waiting[w] -= 1;
            if waiting[w] == 0 {
                ready.push(Reverse(w));
            }
        }
    }
    if order.len() == n { Ok(order) } else { Err((0..n).find(|&v| waiting[v] > 0).unwrap_or(0)) }
}

/// The strongly connected component of each node, numbered from zero (Kosaraju, without recursion).
pub(crate) fn components(n: usize, edges: &[(usize, usize)]) -> (usize, Vec<usize>) {
    let (mut forward, mut backward) = (vec![Vec::new(); n], vec![Vec::new(); n]);
    for &(a, b) in edges {
        forward[a].push(b);
        backward[b].push(a);
    }
    let mut finished = Vec::with_capacity(n);
    let mut seen = vec![false; n];
    for root in 0..n {
        let mut stack = vec![(root, 0)];
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        while let Some((v, next)) = stack.pop() {
            let Some(&w) = forward[v].get(next) else {
                finished.push(v);
                continue;
            };
            stack.push((v, next + 1));
            if !std::mem::replace(&mut seen[w], true) {
                stack.push((w, 0));
            }
        }
    }
    let mut component = vec![usize::MAX; n];
    let mut count = 0;
    for &root in finished.iter().rev() {
        if component[root] != usize::MAX {
            continue;
        }
        let mut stack = vec![root];
        component[root] = count;
        while let Some(v) = stack.pop() {
            for &w in &backward[v] {
                if component[w] == usize::MAX {
                    component[w] = count;
                    stack.push(w);
                }
            }
        }
        count += 1;
    }
    (count, component)
}

/// A pseudo-random sequence from a fixed seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
