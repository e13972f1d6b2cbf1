//! Contraction of an instance to units that are placed as wholes.
//!
//! Colour classes become units, and so do cycles of colour classes. Then come reductions that keep the optimum:
//! a *free* unit (no producer, no time, no bytes, no transfer cost) is left out; a unit without consumers and without
//! time joins its only producer; a unit without time joins its only producer if it is the only consumer and its
//! output costs no more to move. A joined unit that has bytes keeps the optimum only where memory cannot bind, or in
//! the relaxation in which it weighs nothing ([`Leaves::Weightless`]).

use super::instance::Instance;
use crate::error::PlaceError;
use crate::graph;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to the bytes of units without consumers that join their producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// They join with their bytes: every placement of the units is one of the nodes.
    Carried,
    /// They join without bytes: no placement of the nodes is lost.
    Weightless,
}

/// The output of a node that other units use.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The node.
    pub(crate) node: usize,
    /// The unit of the node.
    pub(crate) producer: usize,
    /// The other units that use it.
    pub(crate) consumers: Vec<usize>,
    /// Time to move it.
    pub(crate) cost: f64,
}

/// An instance after contraction; units are numbered so that producers come first where cycles are fused.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    /// The unit of each node, or none for the nodes of free units.
    pub(crate) unit_of: Vec<Option<usize>>,
    /// The nodes of each unit, producers first.
    pub(crate) members: Vec<Vec<usize>>,
    /// Time of each unit on a CPU core.
    pub(crate) cpu: Vec<f64>,
    /// Time of each unit on an accelerator; infinite if it cannot run there.
    pub(crate) accelerator: Vec<f64>,
    /// Bytes of each unit.
    pub(crate) size: Vec<f64>,
    /// The units that a unit needs.
    pub(crate) predecessors: Vec<Vec<usize>>,
    /// The units that need a unit.
    pub(crate) successors: Vec<Vec<usize>>,
    /// The values that cross from unit to unit.
    pub(crate) items: Vec<Item>,
    /// The items that a unit produces.
    pub(crate) produced: Vec<Vec<usize>>,
    /// The items that a unit uses.
    pub(crate) consumed: Vec<Vec<usize>>,
    /// Whether a cycle of colour classes was fused, which excludes placements that put them on different devices.
    pub(crate) fused_cycles: bool,
    /// Whether a unit with bytes joined its producer.
    pub(crate) carried_bytes: bool,
}

impl Units {
    /// The number of units.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Contracts `instance`; cycles of colour classes become units too if `in_order`, so that an order exists.
    pub(crate) fn new(instance: &Instance, leaves: Leaves, in_order: bool) -> Result<Self, PlaceError> {
        let (count, group_of, fused_cycles) = fuse(instance, in_order);
        let mut draft = Draft::new(instance, count, group_of, leaves);
        draft.reduce();
        let mut units = draft.finish(instance)?;
        units.fused_cycles = fused_cycles;
        Ok(units)
    }
}

/// Colour classes, and cycles of them if asked, as groups of nodes.
fn fuse(instance: &Instance, cycles: bool) -> (usize, Vec<usize>, bool) {
    let mut classes: BTreeMap<i64, usize> = BTreeMap::new();
    let mut count = 0;
    let mut group_of = Vec::with_capacity(instance.nodes.len());
    for node in &instance.nodes {
        let mut fresh = || {
            count += 1;
            count - 1
        };
        group_of.push(match node.colour_class {
            Some(class) => *classes.entry(class).or_insert_with(fresh),
            None => fresh(),
        });
    }
    let edges: Vec<(usize, usize)> =
        instance.edges.iter().map(|&(a, b)| (group_of[a], group_of[b])).filter(|(a, b)| a != b).collect();
    if !cycles {
        return (count, group_of, false);
    }
    let (components, component_of) = graph::components(count, &edges);
    for group in &mut group_of {
        *group = component_of[*group];
    }
    (components, group_of, components < count)
}

/// Units while they are being joined.
struct Draft<'a> {
    instance: &'a Instance,
    leaves: Leaves,
    /// Whether all bytes fit one accelerator, so that memory never decides.
    roomy: bool,
    group_of: Vec<usize>,
    /// Whether a group still stands for itself, neither joined nor left out.
    alive: Vec<bool>,
    free: Vec<bool>,
    cpu: Vec<f64>,
    accelerator: Vec<f64>,
    size: Vec<f64>,
    /// For each group the groups it needs and the nodes through which.
    inputs: Vec<BTreeMap<usize, BTreeSet<usize>>>,
    /// For each group the groups that need it.
    outputs: Vec<BTreeSet<usize>>,
    carried_bytes: bool,
}

impl<'a> Draft<'a> {
    fn new(instance: &'a Instance, count: usize, group_of: Vec<usize>, leaves: Leaves) -> Self {
        let total: f64 = instance.nodes.iter().map(|n| n.size).sum();
        let mut draft = Self {
            instance,
            leaves,
            roomy: total <= instance.capacity,
            alive: vec![true; count],
            free: vec![false; count],
            cpu: vec![0.0; count],
            accelerator: vec![0.0; count],
            size: vec![0.0; count],
            inputs: vec![BTreeMap::new(); count],
            outputs: vec![BTreeSet::new(); count],
            group_of,
            carried_bytes: false,
        };
        for (v, node) in instance.nodes.iter().enumerate() {
            let g = draft.group_of[v];
            draft.cpu[g] += node.cpu_time;
            draft.accelerator[g] += if node.supported { node.accelerator_time } else { f64::INFINITY };
            draft.size[g] += node.size;
        }
        for &(a, b) in &instance.edges {
            let (ga, gb) = (draft.group_of[a], draft.group_of[b]);
            if ga != gb {
                draft.inputs[gb].entry(ga).or_default().insert(a);
                draft.outputs[ga].insert(gb);
            }
        }
        draft
    }

    /// Applies the reductions until none applies.
    fn reduce(&mut self) {
        let mut pending: BTreeSet<usize> = (0..self.alive.len()).collect();
        while let Some(g) = pending.pop_first() {
            if !self.alive[g] || self.cpu[g] != 0.0 || self.accelerator[g] != 0.0 {
                continue;
            }
            if self.is_free(g) {
                self.alive[g] = false;
                self.free[g] = true;
                for consumer in std::mem::take(&mut self.outputs[g]) {
                    self.inputs[consumer].remove(&g);
                    pending.insert(consumer);
                }
            } else if let Some(target) = self.joins(g) {
                self.join(g, target);
                pending.insert(target);
                pending.extend(self.outputs[target].iter().copied());
            }
        }
    }

    fn is_free(&self, g: usize) -> bool {
        let moves_free = |v: usize| self.group_of[v] != g || self.instance.nodes[v].output_cost == 0.0;
        self.inputs[g].is_empty() && self.size[g] == 0.0 && (0..self.group_of.len()).all(moves_free)
    }

    /// The producer that a unit without time joins.
    fn joins(&self, g: usize) -> Option<usize> {
        let mut inputs = self.inputs[g].iter();
        let (Some((&target, through)), None) = (inputs.next(), inputs.next()) else { return None };
        if self.outputs[g].is_empty() {
            return Some(target);
        }
        let cost = |v: usize| self.instance.nodes[v].output_cost;
        let moved_in: f64 = through.iter().map(|&v| cost(v)).sum();
        let mut moved_out = BTreeSet::new();
        for &consumer in &self.outputs[g] {
            moved_out.extend(self.inputs[consumer].get(&g).into_iter().flatten().copied());
        }
        let moved_out: f64 = moved_out.into_iter().map(cost).sum();
        let only_consumer = self.outputs[target].len() == 1;
        let weighs_nothing = self.roomy || self.size[g] == 0.0;
        (only_consumer && weighs_nothing && moved_out <= moved_in).then_some(target)
    }

    fn join(&mut self, g: usize, target: usize) {
        self.alive[g] = false;
        let bytes = self.size[g];
        if bytes > 0.0 && !self.roomy {
            self.carried_bytes = true;
        }
        if self.leaves == Leaves::Carried || self.roomy {
            self.size[target] += bytes;
        }
        self.outputs[target].remove(&g);
        for consumer in std::mem::take(&mut self.outputs[g]) {
            let through = self.inputs[consumer].remove(&g).unwrap_or_default();
            self.inputs[consumer].entry(target).or_default().extend(through);
            self.outputs[target].insert(consumer);
        }
        for group in &mut self.group_of {
            if *group == g {
                *group = target;
            }
        }
    }

    fn finish(self, instance: &Instance) -> Result<Units, PlaceError> {
        let kept: Vec<usize> = (0..self.alive.len()).filter(|&g| self.alive[g]).collect();
        let mut number = vec![usize::MAX; self.alive.len()];
        for (i, &g) in kept.iter().enumerate() {
            number[g] = i;
        }
        let mut edges = Vec::new();
        for &g in &kept {
            edges.extend(self.outputs[g].iter().map(|&c| (number[g], number[c])));
        }
        // Without an order, which only cycles of colour classes prevent, any numbering does.
        let order =
            graph::topological_order(kept.len(), &edges).unwrap_or_else(|_| (0..kept.len()).collect());
        for (position, &i) in order.iter().enumerate() {
            number[kept[i]] = position;
        }
        let unit_of: Vec<Option<usize>> =
            self.group_of.iter().map(|&g| (!self.free[g]).then(|| number[g])).collect();
        let pick = |values: &[f64]| order.iter().map(|&i| values[kept[i]]).collect::<Vec<f64>>();
        let mut units = Units {
            members: vec![Vec::new(); kept.len()],
            cpu: pick(&self.cpu),
            accelerator: pick(&self.accelerator),
            size: pick(&self.size),
            predecessors: vec![Vec::new(); kept.len()],
            successors: vec![Vec::new(); kept.len()],
            items: Vec::new(),
            produced: vec![Vec::new(); kept.len()],
            consumed: vec![Vec::new(); kept.len()],
            fused_cycles: false,
            carried_bytes: self.carried_bytes,
            unit_of,
        };
        for v in instance.topological_order()? {
            if let Some(u) = units.unit_of[v] {
                units.members[u].push(v);
            }
        }
        units.link(instance);
        Ok(units)
    }
}

impl Units {
    /// Fills in items and neighbours.
    fn link(&mut self, instance: &Instance) {
        let mut consumers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for &(a, b) in &instance.edges {
            if let (Some(ua), Some(ub)) = (self.unit_of[a], self.unit_of[b])
                && ua != ub
            {
                consumers.entry(a).or_default().insert(ub);
                self.predecessors[ub].push(ua);
                self.successors[ua].push(ub);
            }
        }
        for list in self.predecessors.iter_mut().chain(&mut self.successors) {
            list.sort_unstable();
            list.dedup();
        }
        for (node, consumers) in consumers {
            let Some(producer) = self.unit_of[node] else { continue };
            let item = self.items.len();
            self.produced[producer].push(item);
            for &c in &consumers {
                self.consumed[c].push(item);
            }
            let consumers = consumers.into_iter().collect();
            self.items.push(Item { node, producer, consumers, cost: instance.nodes[node].output_cost });
        }
    }
}
