//! Maximum matching in a bipartite graph by Hopcroft and Karp (SIAM J. Comput. 2(4), 1973).

use std::collections::VecDeque;

const UNREACHED: u32 = u32::MAX;

/// A maximum matching.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    /// The right node of every left node.
    pub(crate) right_of: Vec<Option<usize>>,
    /// The left node of every right node.
    pub(crate) left_of: Vec<Option<usize>>,
    /// How many pairs there are.
    pub(crate) size: usize,
}

/// A maximum matching of left nodes with right nodes; `neighbours[l]` lists the right nodes of `l`.
///
/// Takes O(E √V); paths are followed without recursion.
pub(crate) fn maximum_matching(neighbours: &[Vec<usize>], right: usize) -> Matching {
    let mut matching =
        Matching { right_of: vec![None; neighbours.len()], left_of: vec![None; right], size: 0 };
    match_greedily(neighbours, &mut matching);
    let mut level = vec![UNREACHED; neighbours.len()];
    let mut next = vec![0; neighbours.len()];
    while set_levels(neighbours, &matching, &mut level) {
        next.fill(0);
        for start in 0..neighbours.len() {
            if matching.right_of[start].is_none()
                && augment(neighbours, &mut matching, &mut level, &mut next, start)
            {
                matching.size += 1;
            }
        }
    }
    matching
}

fn match_greedily(neighbours: &[Vec<usize>], matching: &mut Matching) {
    for (left, rights) in neighbours.iter().enumerate() {
        if let Some(&right) = rights.iter().find(|&&r| matching.left_of[r].is_none()) {
            matching.right_of[left] = Some(right);
            matching.left_of[right] = Some(left);
            matching.size += 1;
        }
    }
}

/// Breadth-first levels of left nodes; false if no free right node can be reached.
fn set_levels(neighbours: &[Vec<usize>], matching: &Matching, level: &mut [u32]) -> bool {
    level.fill(UNREACHED);
    let mut queue = VecDeque::new();
    for (left, right) in matching.right_of.iter().enumerate() {
        if right.is_none() {
            level[left] = 0;
            queue.push_back(left);
        }
    }
    let mut found = false;
    while let Some(left) = queue.pop_front() {
        for &right in &neighbours[left] {
            match matching.left_of[right] {
                None => found = true,
                Some(other) if level[other] == UNREACHED => {
                    level[other] = level[left] + 1;
                    queue.push_back(other);
                }
                Some(_) => {}
            }
        }
    }
    found
}

/// Looks for an augmenting path from `start` along rising levels and applies it.
fn augment(
    neighbours: &[Vec<usize>],
    matching: &mut Matching,
    level: &mut [u32],
    next: &mut [usize],
    start: usize,
) -> bool {
    let mut path = vec![start];
    while let Some(&left) = path.last() {
        let Some(&right) = neighbours[left].get(next[left]) else {
            level[left] = UNREACHED;
            path.pop();
            if let Some(&back) = path.last() {
                next[back] += 1;
            }
            continue;
        };
        match matching.left_of[right] {
            None => {
                for &left in &path {
                    let right = neighbours[left][next[left]];
                    matching.right_of[left] = Some(right);
                    matching.left_of[right] = Some(left);
                }
                return true;
            }
            Some(other) if level[other] == level[left] + 1 => path.push(other),
            Some(_) => next[left] += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of a maximum matching by trying everything.
    fn brute(neighbours: &[Vec<usize>], used: u32) -> usize {
        let Some((rights, rest)) = neighbours.split_first() else { return 0 };
        let free = rights.iter().filter(|&&r| used >> r & 1 == 0);
        free.map(|r| 1 + brute(rest, used | 1 << r)).max().unwrap_or(0).max(brute(rest, used))
    }

    #[test]
    fn is_maximum_on_random_graphs() {
        let mut state = 7u64;
        for case in 0..2000 {
            let mut random = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize
            };
            let (left, right) = (random() % 7, 1 + random() % 7);
            let neighbours: Vec<Vec<usize>> =
                (0..left).map(|_| (0..right).filter(|_| random() % 3 == 0).collect()).collect();
            let matching = maximum_matching(&neighbours, right);
            assert_eq!(matching.size, brute(&neighbours, 0), "case {case}: {neighbours:?}");
            for (l, r) in matching.right_of.iter().enumerate() {
                if let Some(r) = r {
                    assert!(neighbours[l].contains(r));
                    assert_eq!(matching.left_of[*r], Some(l));
                }
            }
        }
    }
}
