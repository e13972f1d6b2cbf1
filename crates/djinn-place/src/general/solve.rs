//! From a problem to a placement and its lower bound.

use super::bound;
use super::cost::{ProblemCost, evaluate_problem};
use super::line;
use super::local::Search;
use super::problem::Problem;
use super::tree;
use crate::error::PlaceError;
use crate::limits::{Limits, StopReason};

/// The number of first placements from which local search starts.
const STARTS: usize = 3;

/// Values this close, relatively, are the same.
const SAME: f64 = 1e-9;

/// A placement of a problem and its lower bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The device of each task.
    pub device: Vec<usize>,
    /// What it costs under the objective.
    pub value: f64,
    /// No placement costs less.
    pub lower_bound: f64,
    /// Why the search ended.
    pub stopped_by: StopReason,
    /// What [`evaluate_problem`] says in full.
    pub cost: ProblemCost,
}

/// Looks for the placement that costs least.
///
/// Small problems are searched exactly. Larger ones are cut into stages by a dynamic programme over cut positions and
/// devices, and improved by local search; the lower bound says how good that is at least.
pub fn solve(problem: &Problem, limits: &Limits) -> Result<Solution, PlaceError> {
    problem.validate()?;
    check_room(problem)?;
    let lower = bound::lower_bound(problem);
    if problem.devices() == 1 {
        return finish(problem, vec![0; problem.tasks.len()], f64::INFINITY, StopReason::Proved);
    }
    let same = twins(problem);
    let mut search = Search::new(problem, limits.moves);
    if let Some(task) = search.homeless() {
        return Err(PlaceError::Infeasible(format!(
            "no device may run task {task} and the rest of its class"
        )));
    }
    let wishes = line::stages(problem, &same).into_iter().collect();
    let mut starts = search.starts(wishes);
    starts.truncate(STARTS);
    let closed = |value: f64| value - lower <= value * SAME;
    let mut best = starts[0].clone();
    for mut start in starts {
        if best.0.violation == 0.0 && closed(best.0.value) && start.0 > best.0 {
            continue;
        }
        search.descend(&mut start);
        if start.0 < best.0 {
            best = start;
        }
    }
    let feasible = best.0.violation == 0.0;
    if problem.tasks.len() <= tree::MAX_TASKS && !(feasible && closed(best.0.value)) {
        let upper = if feasible { best.0.value * (1.0 - SAME) } else { f64::INFINITY };
        let (found, complete) = tree::search(problem, &same, upper, limits.tree_nodes);
        if let Some(device) = found {
            let value = search.score(&device).value;
            let lower = if complete { value } else { lower };
            return finish(problem, device, lower, StopReason::TreeNodes);
        }
        if feasible && complete {
            return finish(problem, best.1, best.0.value, StopReason::Proved);
        }
        if !feasible && complete {
            return Err(PlaceError::Infeasible(
                "no placement respects capacities, classes, links and stages".into(),
            ));
        }
    }
    finish(problem, best.1, lower, StopReason::Moves)
}

/// Refuses what cannot fit by sums alone.
fn check_room(problem: &Problem) -> Result<(), PlaceError> {
    let total = bound::total_bytes(problem);
    let room: f64 = problem.capacity.iter().sum();
    if total > room {
        return Err(PlaceError::Infeasible(format!(
            "{total} bytes are needed, {} devices hold {room}",
            problem.devices()
        )));
    }
    for (i, task) in problem.tasks.iter().enumerate() {
        let fits = |(s, c): (&f64, &f64)| s.is_finite() && task.bytes <= *c;
        if !task.seconds.iter().zip(&problem.capacity).any(fits) {
            return Err(PlaceError::Infeasible(format!(
                "task {i} needs {} bytes, and no device that may run it holds so much",
                task.bytes
            )));
        }
    }
    Ok(())
}

fn finish(
    problem: &Problem,
    device: Vec<usize>,
    lower: f64,
    stopped_by: StopReason,
) -> Result<Solution, PlaceError> {
    let cost = evaluate_problem(problem, &device).map_err(|e| PlaceError::Infeasible(e.to_string()))?;
    if problem.stages && !cost.staged {
        return Err(PlaceError::Infeasible(
            "the devices found send values to one another in a circle".into(),
        ));
    }
    let value = cost.value(problem);
    let lower = lower.min(value);
    let closed = value - lower <= value * SAME;
    Ok(Solution {
        value,
        lower_bound: if closed { value } else { lower },
        stopped_by: if closed { StopReason::Proved } else { stopped_by },
        device,
        cost,
    })
}

/// For each pair of devices whether they can be exchanged.
fn twins(problem: &Problem) -> Vec<Vec<bool>> {
    let d = problem.devices();
    let link = |a: usize, b: usize| problem.links[a][b];
    let alike = |a: usize, b: usize| {
        problem.capacity[a] == problem.capacity[b]
            && problem.tasks.iter().all(|t| t.seconds[a] == t.seconds[b])
            && link(a, b) == link(b, a)
            && (0..d)
                .filter(|&c| c != a && c != b)
                .all(|c| link(a, c) == link(b, c) && link(c, a) == link(c, b))
    };
    (0..d).map(|a| (0..d).map(|b| a != b && alike(a, b)).collect()).collect()
}
