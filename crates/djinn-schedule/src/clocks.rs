//! Vector clocks of streams: how far every stream is known to have come when a node starts.
//!
//! After Fidge and Mattern (1988): with k streams a table of nodes × k counters answers every
//! question about the order of nodes, without a closure.

use crate::error::ScheduleError;

/// Where each node stands in its stream.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    /// The stream of every node, numbered densely.
    pub(crate) lane: Vec<u32>,
    /// The position of every node in its stream, from 1.
    pub(crate) position: Vec<u32>,
    /// How many streams there are.
    pub(crate) lanes: usize,
}

impl Lanes {
    /// Checks that `order` is a permutation of the nodes and that there is a stream for each.
    pub(crate) fn new(nodes: usize, order: &[usize], stream: &[usize]) -> Result<Lanes, ScheduleError> {
        check_length("streams", stream.len(), nodes)?;
        check_length("places in the order", order.len(), nodes)?;
        let (lane, lanes) = number_densely(stream);
        let mut position = vec![0; nodes];
        let mut last = vec![0; lanes];
        for &node in order {
            if node >= nodes || position[node] != 0 {
                return Err(ScheduleError::Order { node });
            }
            let last = &mut last[lane[node] as usize];
            *last += 1;
            position[node] = *last;
        }
        Ok(Lanes { lane, position, lanes })
    }

    /// The stream of `node`.
    pub(crate) fn of(&self, node: usize) -> usize {
        self.lane[node] as usize
    }
}

pub(crate) fn check_length(what: &'static str, found: usize, expected: usize) -> Result<(), ScheduleError> {
    if found == expected { Ok(()) } else { Err(ScheduleError::Length { what, found, expected }) }
}

fn number_densely(stream: &[usize]) -> (Vec<u32>, usize) {
    let most = stream.iter().copied().max().map_or(0, |s| s.saturating_add(1));
    if most <= 2 * stream.len() {
        let mut number = vec![0; most];
        stream.iter().for_each(|s| number[*s] = 1);
        let mut count = 0;
        for slot in &mut number {
            count += std::mem::replace(slot, count);
        }
        return (stream.iter().map(|s| number[*s]).collect(), count as usize);
    }
    let mut names = stream.to_vec();
    names.sort_unstable();
    names.dedup();
    let lane = stream.iter().map(|s| names.partition_point(|n| n < s) as u32).collect();
    (lane, names.len())
}

/// One row of counters per node: how many nodes of each stream are complete before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Clocks {
    lanes: usize,
    cells: Vec<u32>,
}

impl Clocks {
    pub(crate) fn new(nodes: usize, lanes: usize) -> Clocks {
        Clocks { lanes, cells: vec![0; nodes * lanes] }
    }

    pub(crate) fn row(&self, node: usize) -> &[u32] {
        &self.cells[node * self.lanes..(node + 1) * self.lanes]
    }

    /// Lets `node` start only after `before` is complete.
    pub(crate) fn follow(&mut self, node: usize, before: usize, lanes: &Lanes) {
        let (to, from) = (node * self.lanes, before * self.lanes);
        for s in 0..self.lanes {
            self.cells[to + s] = self.cells[to + s].max(self.cells[from + s]);
        }
        let own = &mut self.cells[to + lanes.of(before)];
        *own = (*own).max(lanes.position[before]);
    }
}
