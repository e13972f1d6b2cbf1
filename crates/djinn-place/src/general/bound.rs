//! Lower bounds of a problem that need no search.

use super::problem::{Objective, Problem};

/// No placement costs less than this.
pub(crate) fn lower_bound(problem: &Problem) -> f64 {
    match problem.objective {
        Objective::Latency => path_bound(problem).max(work_bound(problem)),
        Objective::Throughput => work_bound(problem),
        Objective::Memory => {
            let room: f64 = problem.capacity.iter().sum();
            if room > 0.0 { total_bytes(problem) / room } else { 0.0 }
        }
    }
}

/// The bytes of everything, shared bytes once.
pub(crate) fn total_bytes(problem: &Problem) -> f64 {
    let shared = problem.shared.iter().filter(|s| !s.users.is_empty()).map(|s| s.bytes);
    problem.tasks.iter().map(|t| t.bytes).chain(shared).sum()
}

/// The shortest time of each task on a device that may run it.
pub(crate) fn shortest(problem: &Problem) -> Vec<f64> {
    problem.tasks.iter().map(|t| t.seconds.iter().copied().fold(f64::INFINITY, f64::min)).collect()
}

/// For each task the longest path of shortest times from its end on.
pub(crate) fn tails(problem: &Problem) -> Vec<f64> {
    let shortest = shortest(problem);
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); problem.tasks.len()];
    for value in &problem.values {
        consumers[value.producer].extend_from_slice(&value.consumers);
    }
    let mut tail = vec![0.0f64; problem.tasks.len()];
    for task in (0..tail.len()).rev() {
        tail[task] = consumers[task].iter().map(|&c| shortest[c] + tail[c]).fold(0.0, f64::max);
    }
    tail
}

/// The longest path of shortest times, with the cheapest transfer where capacities force one.
fn path_bound(problem: &Problem) -> f64 {
    let shortest = shortest(problem);
    let tail = tails(problem);
    let mut end = shortest.clone();
    let mut inputs: Vec<Vec<usize>> = vec![Vec::new(); end.len()];
    for value in &problem.values {
        for &c in &value.consumers {
            inputs[c].push(value.producer);
        }
    }
    for task in 0..end.len() {
        end[task] += inputs[task].iter().map(|&p| end[p]).fold(0.0, f64::max);
    }
    let longest = end.iter().copied().fold(0.0, f64::max);
    let crossings = devices_needed(problem).saturating_sub(1);
    if crossings == 0 || end.is_empty() {
        return longest;
    }
    let cheapest = |bytes: f64| {
        let d = problem.devices();
        let pairs = (0..d).flat_map(|a| (0..d).map(move |b| (a, b))).filter(|(a, b)| a != b);
        pairs.map(|(a, b)| problem.transfer(a, b, bytes)).fold(f64::INFINITY, f64::min)
    };
    // In a chain each pair of neighbours on different devices adds a transfer to the one path there is.
    let in_chain = |task: usize| inputs[task].contains(&(task - 1));
    if (1..end.len()).all(in_chain) {
        let mut least = vec![f64::INFINITY; end.len()];
        for value in problem.values.iter().filter(|v| v.consumers.contains(&(v.producer + 1))) {
            least[value.producer] = least[value.producer].min(cheapest(value.bytes));
        }
        least.sort_by(f64::total_cmp);
        return longest + least.iter().take(crossings).sum::<f64>();
    }
    if !connected(problem) {
        return longest;
    }
    // Some value crosses, and the path through it waits for the transfer.
    let through = |value: &super::problem::Value| {
        let later = value.consumers.iter().map(|&c| shortest[c] + tail[c]).fold(f64::INFINITY, f64::min);
        end[value.producer] + cheapest(value.bytes) + later
    };
    let forced = problem.values.iter().filter(|v| !v.consumers.is_empty()).map(through);
    longest.max(forced.fold(f64::INFINITY, f64::min))
}

/// The fewest devices whose capacities hold everything.
pub(crate) fn devices_needed(problem: &Problem) -> usize {
    let mut room: Vec<f64> = problem.capacity.clone();
    room.sort_by(|a, b| b.total_cmp(a));
    let mut left = total_bytes(problem);
    let mut count = 0;
    for r in room {
        if left <= 0.0 {
            break;
        }
        left -= r;
        count += 1;
    }
    count
}

/// Whether values connect all tasks.
fn connected(problem: &Problem) -> bool {
    let mut group: Vec<usize> = (0..problem.tasks.len()).collect();
    fn root(group: &mut [usize], mut v: usize) -> usize {
        while group[v] != v {
            group[v] = group[group[v]];
            v = group[v];
        }
        v
    }
    let mut groups = group.len();
    for value in &problem.values {
        for &c in &value.consumers {
            let (a, b) = (root(&mut group, value.producer), root(&mut group, c));
            if a != b {
                group[a] = b;
                groups -= 1;
            }
        }
    }
    groups <= 1
}

/// The work divided as if it were fluid, by weights of the devices: the sum over tasks of the least weighted time
/// is no more than the largest load, for any weights that sum to one (duality of linear programmes).
fn work_bound(problem: &Problem) -> f64 {
    let longest = shortest(problem).into_iter().fold(0.0, f64::max);
    let mut total = vec![0.0; problem.devices()];
    for task in &problem.tasks {
        for (t, s) in total.iter_mut().zip(&task.seconds) {
            *t += if s.is_finite() { *s } else { 0.0 };
        }
    }
    let equal = vec![1.0; problem.devices()];
    let speed: Vec<f64> = total.iter().map(|&t: &f64| 1.0 / t.max(1e-30)).collect();
    let by = |weights: &[f64]| {
        let sum: f64 = weights.iter().sum();
        let least = |task: &super::problem::Task| {
            task.seconds.iter().zip(weights).map(|(s, w)| s * w).fold(f64::INFINITY, f64::min)
        };
        problem.tasks.iter().map(least).sum::<f64>() / sum
    };
    longest.max(by(&equal)).max(by(&speed))
}
