//! The cost of a fused group: one launch, and traffic only for what crosses the group's border.

use crate::features::{Features, Member};
use crate::model::{CostModel, extra};
use crate::work::{Sizes, Work, op_class, precision, reads_what_it_gives, work};
use djinn_device::OpClass;
use djinn_ir::{Graph, Op, OpId, TensorType, ValueId};
use std::collections::BTreeMap;

/// Threads that a multiprocessor holds at once (CUDA C++ Programming Guide, technical specifications: 1,536 or 2,048).
const THREADS: f64 = 2048.0;

/// Result elements of a contraction that one multiprocessor works on at once: a tile of 128 × 128, the usual largest.
const TILE: f64 = 16384.0;

/// The smallest share of a device that work is said to use.
pub const MIN_SHARE: f64 = 1e-3;

/// What a group costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupCost {
    /// Seconds.
    pub seconds: f64,
    /// Multiply-accumulate operations.
    pub flops: f64,
    /// Bytes read from outside the group.
    pub bytes_read: f64,
    /// Bytes written for outside the group.
    pub bytes_written: f64,
    /// About which share of the device the kernel uses, averaged over its seconds, from [`MIN_SHARE`] to 1: what is
    /// left could run something else. The largest of three: the multiprocessors that the widest operation can use,
    /// estimated from result sizes (2,048 elements, or a tile of 128 × 128, a multiprocessor) and not used during the
    /// launch; the part of the memory bandwidth that its traffic takes; the part of the peak rate that its
    /// multiply-accumulate work takes. So kernels side by side together exceed neither bandwidth nor peak.
    pub share: f64,
}

/// What one kernel for a group of operations does.
#[derive(Default)]
struct GroupWork<'a> {
    members: Vec<(&'a Op, Work<f64>)>,
    /// Seconds of multiply-accumulate work at the rates of its operations.
    computing: f64,
    /// Seconds of multiply-accumulate work at peak rates.
    at_peak: f64,
    /// Seconds of operations with regions.
    inside: f64,
    /// Bytes read of each value from outside: all of it, or what partial readers take.
    read: BTreeMap<ValueId, (bool, f64)>,
    written: f64,
    launches: f64,
    passes: f64,
}

impl GroupWork<'_> {
    /// Bytes that cross the border.
    fn bytes(&self) -> f64 {
        self.read.values().map(|(_, b)| b).sum::<f64>() + self.written
    }
}

impl CostModel<'_> {
    /// Seconds of a group of operations that one kernel runs; see [`CostModel::group_cost`].
    pub fn group(&self, graph: &Graph, ops: &[OpId], uses: &[u32]) -> f64 {
        self.group_cost(graph, ops, uses).seconds
    }

    /// The cost of a group of operations that one kernel runs: one launch, the operands from outside read once, only
    /// the results that are used outside written. `uses` is [`Graph::use_counts`] of the graph. On a device that
    /// fuses nothing, and for a group of one, the seconds are the sum of the operations'.
    pub fn group_cost(&self, graph: &Graph, ops: &[OpId], uses: &[u32]) -> GroupCost {
        let members = || ops.iter().filter_map(|id| graph.get_op(*id));
        let mut group = GroupWork { passes: 1.0, ..GroupWork::default() };
        for op in members() {
            self.add_member(graph, op, &mut group);
        }
        self.add_border(graph, uses, &mut group);
        let apart = group.members.len() <= 1 || !self.profile.fuses;
        let seconds = if apart {
            members().map(|op| self.op_of(graph, op, false)).sum()
        } else {
            self.group_seconds(&group)
        };
        GroupCost {
            seconds,
            flops: group.members.iter().map(|(_, work)| work.flops).sum(),
            bytes_read: group.read.values().map(|(_, bytes)| bytes).sum(),
            bytes_written: group.written,
            share: self.share(&group, apart, seconds),
        }
    }

    /// What the cost model knows of the group at its sizes; see [`Features`].
    pub fn features(&self, graph: &Graph, ops: &[OpId], uses: &[u32]) -> Features {
        let mut group = GroupWork { passes: 1.0, ..GroupWork::default() };
        for op in ops.iter().filter_map(|id| graph.get_op(*id)) {
            self.add_member(graph, op, &mut group);
        }
        self.add_border(graph, uses, &mut group);
        Features {
            bytes_read: group.read.values().map(|(_, bytes)| bytes).sum(),
            bytes_written: group.written,
            regions: group.members.iter().any(|(op, _)| !op.regions.is_empty()),
            members: group.members.into_iter().map(|(op, work)| self.member(graph, op, work)).collect(),
        }
    }

    fn member(&self, graph: &Graph, op: &Op, work: Work<f64>) -> Member {
        let shape = |v: &ValueId| {
            let ty = graph.ty(*v);
            let sizes: Vec<String> = ty.shape.iter().map(|d| self.size(d).to_string()).collect();
            format!("{}[{}]", ty.dtype, sizes.join(","))
        };
        let all = |values: &[ValueId]| values.iter().map(shape).collect::<Vec<_>>().join(" ");
        Member {
            kind: op.kind,
            dtype: op.operands.first().map(|v| graph.ty(*v).dtype),
            shapes: format!("{} -> {}", all(&op.operands), all(&op.results)),
            work,
        }
    }

    /// See [`GroupCost::share`].
    fn share(&self, group: &GroupWork<'_>, apart: bool, seconds: f64) -> f64 {
        let busy = 1.0 - (self.profile.launch_seconds / seconds).min(1.0);
        let wide = group.members.iter().map(|(op, work)| self.occupancy(op, work)).fold(0.0, f64::max) * busy;
        let bytes = if apart {
            let moves = group.members.iter().filter(|(op, _)| op_class(op.kind).is_some());
            moves.map(|(_, work)| (work.bytes_read + work.bytes_written) * work.passes).sum::<f64>()
        } else {
            group.bytes() * group.passes
        };
        let moving = bytes / (self.profile.memory_bandwidth * seconds);
        // No NaN of 0 / 0 comes through `max`.
        wide.max(moving).max(group.at_peak / seconds).clamp(MIN_SHARE, 1.0)
    }

    /// The share of the multiprocessors that an operation can use.
    fn occupancy(&self, op: &Op, work: &Work<f64>) -> f64 {
        let each = match op_class(op.kind) {
            None => return 0.0,
            Some(OpClass::Contraction) => TILE,
            Some(_) => THREADS,
        };
        (work.elements / each / f64::from(self.profile.multiprocessors)).min(1.0)
    }

    fn add_member<'a>(&self, graph: &'a Graph, op: &'a Op, group: &mut GroupWork<'a>) {
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| graph.ty(*v)).collect();
        let results: Vec<TensorType> = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let work = work(self, op.kind, &op.attrs, &operands, &results);
        group.launches = group.launches.max(work.launches);
        group.passes = group.passes.max(work.passes);
        if let (Some(class), Some(first)) = (op_class(op.kind), operands.first()) {
            let rates = self.profile.rates(op.kind.name(), class);
            let at_peak = work.flops / self.profile.peaks.of(precision(first.dtype));
            group.at_peak += at_peak;
            group.computing += at_peak / rates.compute;
        }
        // Regions run inside the kernel, at their own cost.
        if !op.regions.is_empty() {
            group.inside += self.op_of(graph, op, false);
        }
        for (i, v) in op.operands.iter().enumerate() {
            let partial = i == 0 && reads_what_it_gives(op.kind);
            let slot = group.read.entry(*v).or_insert((false, 0.0));
            slot.0 |= !partial;
            slot.1 += if partial { work.bytes_written } else { 0.0 };
        }
        group.members.push((op, work));
    }

    fn add_border(&self, graph: &Graph, uses: &[u32], group: &mut GroupWork<'_>) {
        let mut inside: BTreeMap<ValueId, u32> = BTreeMap::new();
        for v in group.members.iter().flat_map(|(op, _)| &op.operands) {
            *inside.entry(*v).or_default() += 1;
        }
        for v in group.members.iter().flat_map(|(op, _)| &op.results) {
            group.read.remove(v);
            let all = uses.get(v.0 as usize).copied().unwrap_or(0);
            // A result that nobody uses is still written.
            if all == 0 || all > inside.get(v).copied().unwrap_or(0) {
                group.written += Sizes::bytes(self, graph.ty(*v));
            }
        }
        for (v, (whole, bytes)) in &mut group.read {
            let all = Sizes::bytes(self, graph.ty(*v));
            *bytes = if *whole { all } else { bytes.min(all) };
        }
    }

    fn group_seconds(&self, group: &GroupWork<'_>) -> f64 {
        let profile = self.profile;
        // The class of the heaviest member says what the kernel reaches of the bandwidth.
        let heaviest = group.members.iter().filter_map(|(op, _)| Some((op_class(op.kind)?, op.kind))).max();
        let Some((class, kind)) = heaviest else { return profile.launch_seconds * group.launches };
        let memory = profile.rates(kind.name(), class).memory;
        let traffic = group.bytes() / (profile.memory_bandwidth * memory) * group.passes;
        let extras = group.members.iter().filter_map(|(op, work)| {
            let rates = profile.rates(op.kind.name(), op_class(op.kind)?);
            Some((extra(profile, rates, work) - rates.overhead_seconds, rates.overhead_seconds))
        });
        // Work per element adds up; the overhead of a launch is paid once.
        let (each, once) = extras.fold((0.0, 0.0f64), |(e, o), (a, b)| (e + a, o.max(b)));
        let busy = if profile.roofline { group.computing.max(traffic) } else { 0.0 };
        profile.launch_seconds * group.launches + busy + group.inside + each + once
    }
}
