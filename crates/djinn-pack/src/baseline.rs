//! The planners of two widely used runtimes, to compare with. [`pack`](crate::pack) is never above either,
//! except on problems with so many conflicts that it only sweeps through time.
//!
//! Both are written from the problem alone, simply: quadratic in the number of buffers.

use std::cmp::Reverse;

use crate::problem::{Lifetimes, Problem};

/// Places buffers by size, largest first, each into the narrowest gap between placed buffers that conflict
/// with it, or above them.
///
/// This is what TensorFlow Lite's `ArenaPlanner` does (`tensorflow/lite/arena_planner.cc`,
/// `simple_memory_arena.cc`); buffers of equal size come in order of their first moment.
pub fn tflite_greedy_by_size(problem: &Problem) -> Vec<u64> {
    let mut order: Vec<usize> = births(problem);
    order.sort_by_key(|&i| Reverse(problem.buffers()[i].size));
    place(problem, &order, false)
}

/// Places buffers in order of their first moment, each into the narrowest gap between live buffers, where
/// the range up to the present top counts as a gap, or above them.
///
/// This is what ONNX Runtime's `MemPatternPlanner` does (`core/framework/mem_pattern_planner.h`).
pub fn onnxruntime_mem_pattern(problem: &Problem) -> Vec<u64> {
    place(problem, &births(problem), true)
}

/// The highest end of a buffer.
pub fn height(problem: &Problem, offsets: &[u64]) -> u64 {
    let ends = problem.buffers().iter().zip(offsets).filter(|(b, _)| b.size > 0).map(|(b, o)| o + b.size);
    ends.max().unwrap_or(0)
}

/// The buffers in order of their first moment, or of their index when conflicts are given.
fn births(problem: &Problem) -> Vec<usize> {
    let mut order: Vec<usize> = (0..problem.buffers().len()).collect();
    if *problem.lifetimes() == Lifetimes::Intervals {
        order.sort_by_key(|&i| problem.buffers()[i].lower);
    }
    order
}

fn place(problem: &Problem, order: &[usize], under_top: bool) -> Vec<u64> {
    let buffers = problem.buffers();
    let mut offsets: Vec<Option<u64>> = buffers.iter().map(|b| b.offset).collect();
    let mut top = 0;
    for &i in order.iter().filter(|&&i| buffers[i].offset.is_none() && buffers[i].size > 0) {
        let conflicts = |j: &usize| match problem.lifetimes() {
            Lifetimes::Intervals => {
                buffers[*j].lower < buffers[i].upper && buffers[i].lower < buffers[*j].upper
            }
            Lifetimes::Conflicts(pairs) => pairs.of(i).contains(&(*j as u32)),
        };
        let mut taken: Vec<(u64, u64)> = (0..buffers.len())
            .filter(|&j| j != i && buffers[j].size > 0)
            .filter(conflicts)
            .filter_map(|j| offsets[j].map(|o| (o, o + buffers[j].size)))
            .collect();
        taken.sort_unstable();
        let size = buffers[i].size;
        let mut at = 0;
        let mut best: Option<(u64, u64)> = None;
        for (low, high) in taken {
            if low >= at + size && best.is_none_or(|(gap, _)| low - at < gap) {
                best = Some((low - at, at));
            }
            at = at.max(high.next_multiple_of(buffers[i].alignment));
        }
        if under_top && top >= at + size && best.is_none_or(|(gap, _)| top - at < gap) {
            best = Some((top - at, at));
        }
        let offset = best.map_or(at, |(_, at)| at);
        top = top.max(offset + size);
        offsets[i] = Some(offset);
    }
    offsets.into_iter().map(|o| o.unwrap_or(0)).collect()
}
