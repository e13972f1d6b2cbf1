//! What every derivation of an e-class contains.
//!
//! `need(c)` is `c` itself together with whatever all its e-nodes need: a forward dominator
//! analysis on an AND-OR graph, kept as bit sets. Two exact steps use it: e-nodes that only cyclic
//! selections could use are dropped ([`prune_cycles`]), and e-classes that the root needs are
//! forced ([`Needs::of`]).

use crate::graph::{Components, Graph, Lists, NONE};

/// Larger scopes are not analysed; it bounds the bit sets to 32 MiB.
const MAX_SCOPE: usize = 16_384;

/// Passes over a scope in the computation of its sets; without convergence there is no result.
const MAX_PASSES: usize = 16;

/// E-classes visited in the search for a way from the root; more count as a way found.
const MAX_VISITED: usize = 256;

/// The needs of a scope of e-classes among one another.
pub(crate) struct Needs<'a> {
    /// The e-classes of the scope.
    members: &'a [u32],
    /// The place of each e-class in `members`, or [`NONE`].
    position: &'a mut [u32],
    /// The number of 64-bit words per set.
    words: usize,
    bits: Vec<u64>,
}

impl<'a> Needs<'a> {
    /// The greatest sets with `need(c) = {c} + intersection over e-nodes of union over children`,
    /// or `None` when the scope is too large or the sets do not settle.
    ///
    /// `members` should list children before users where cycles allow. `position` has [`NONE`]
    /// for every e-class, before the call and after the end of the result.
    pub fn new(graph: &Graph, members: &'a [u32], position: &'a mut [u32], live: &[bool]) -> Option<Self> {
        if members.len() > MAX_SCOPE {
            return None;
        }
        for (i, &c) in members.iter().enumerate() {
            position[c as usize] = i as u32;
        }
        let words = members.len().div_ceil(64);
        let bits = vec![u64::MAX; words * members.len()];
        let mut needs = Self { members, position, words, bits };
        for _ in 0..MAX_PASSES {
            if !needs.pass(graph, live) {
                return Some(needs);
            }
        }
        None
    }

    /// Recomputes every set once; returns whether one changed.
    fn pass(&mut self, graph: &Graph, live: &[bool]) -> bool {
        let mut changed = false;
        let mut meet = vec![0; self.words];
        let mut set = vec![0; self.words];
        for i in 0..self.members.len() {
            meet.fill(u64::MAX);
            for n in graph.nodes_of(self.members[i] as usize).filter(|&n| live[n]) {
                set.fill(0);
                self.add_children(graph, n, &mut set);
                meet.iter_mut().zip(&set).for_each(|(m, s)| *m &= s);
            }
            meet[i / 64] |= 1 << (i % 64);
            let old = &mut self.bits[i * self.words..(i + 1) * self.words];
            if old != meet.as_slice() {
                old.copy_from_slice(&meet);
                changed = true;
            }
        }
        changed
    }

    /// Adds the needs of the children of `node` to `set`; returns whether the scope has any.
    fn add_children(&self, graph: &Graph, node: usize, set: &mut [u64]) -> bool {
        let mut any = false;
        for &child in graph.children_of(node) {
            let place = self.position[child as usize];
            if place != NONE {
                any = true;
                set.iter_mut().zip(self.row(place)).for_each(|(s, n)| *s |= n);
            }
        }
        any
    }

    fn row(&self, place: u32) -> &[u64] {
        &self.bits[place as usize * self.words..(place as usize + 1) * self.words]
    }

    /// The e-classes that `class`, a member of the scope, needs, itself included.
    pub fn of(&self, class: u32) -> impl Iterator<Item = u32> + use<'_, 'a> {
        ones(self.row(self.position[class as usize])).map(|i| self.members[i as usize])
    }
}

impl Drop for Needs<'_> {
    fn drop(&mut self) {
        for &c in self.members {
            self.position[c as usize] = NONE;
        }
    }
}

fn has(set: &[u64], i: u32) -> bool {
    set[i as usize / 64] >> (i % 64) & 1 == 1
}

/// The places of the bits that are set, in increasing order.
fn ones(set: &[u64]) -> impl Iterator<Item = u32> + use<'_> {
    set.iter().enumerate().flat_map(|(w, &word)| {
        let next = |&bits: &u64| Some(bits & bits.wrapping_sub(1)).filter(|&rest| rest != 0);
        std::iter::successors(Some(word).filter(|&bits| bits != 0), next)
            .map(move |bits| w as u32 * 64 + bits.trailing_zeros())
    })
}

/// Clears the mark in `live` of e-nodes that only cyclic selections could use; returns how many.
///
/// An e-node of `c` is useless when it needs `c`, and also when every way from the root to `c`
/// passes through an e-class that it needs.
pub(crate) fn prune_cycles(
    graph: &Graph,
    scc: &Components,
    needs: &Needs<'_>,
    parents: &Lists,
    live: &mut [bool],
) -> usize {
    let mut useless = Vec::new();
    let mut set = vec![0; needs.words];
    let mut visited = vec![NONE; graph.classes()];
    for &class in needs.members.iter().filter(|&&c| scc.cyclic(c as usize)) {
        for n in graph.nodes_of(class as usize).filter(|&n| live[n]) {
            let cyclic = graph.children_of(n).iter().any(|&c| scc.together(class as usize, c as usize));
            if !cyclic {
                continue;
            }
            set.fill(0);
            needs.add_children(graph, n, &mut set);
            let way = Way { graph, scc, parents, live, position: needs.position, avoid: &set };
            if has(&set, needs.position[class as usize]) || !way.exists(class, n as u32, &mut visited) {
                useless.push(n);
            }
        }
    }
    useless.iter().for_each(|&n| live[n] = false);
    useless.len()
}

/// A search for a way out of a component, towards the root, that meets nothing in `avoid`.
struct Way<'a> {
    graph: &'a Graph,
    scc: &'a Components,
    parents: &'a Lists,
    live: &'a [bool],
    position: &'a [u32],
    avoid: &'a [u64],
}

impl Way<'_> {
    fn exists(&self, start: u32, stamp: u32, visited: &mut [u32]) -> bool {
        let mut stack = vec![start];
        visited[start as usize] = stamp;
        let mut count = 0;
        while let Some(class) = stack.pop() {
            count += 1;
            for &user in self.parents.of(class as usize) {
                if !self.live[user as usize] {
                    continue;
                }
                let user_class = self.graph.node_class[user as usize];
                let inside = self.scc.together(user_class as usize, class as usize);
                if !inside || count > MAX_VISITED {
                    return true;
                }
                let seen = visited[user_class as usize] == stamp;
                if !seen && !has(self.avoid, self.position[user_class as usize]) {
                    visited[user_class as usize] = stamp;
                    stack.push(user_class);
                }
            }
        }
        false
    }
}
