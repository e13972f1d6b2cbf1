//! `djinn-harness streams`: events and simulated time of the scheduler on graphs with much to run side by side.

use crate::bench::{self, Args};
use crate::table::Table;
use djinn::PlanRequest;
use djinn::device::{Profile, Target};
use djinn::ir::{Attr, Module};
use djinn_schedule::samples::{Net, inception_v3, nasnet_like, rand_wire, transformer};
use djinn_schedule::{Dag, Limits, Options, assign, assign_unlimited, simulate, synchronise};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Streams of the schedule that is compared with unlimited streams.
const STREAMS: usize = 4;

/// The simulated time may be above that of unlimited streams by this part.
const ABOVE_UNLIMITED: f64 = 0.05;

/// What an event costs, in seconds, in the generated graphs.
const EVENT: f64 = 1.5e-6;

/// The models whose units are scheduled, and the device they are planned for.
const MODELS: [&str; 4] = ["inception_v3", "nasrnn", "resnext50_32x4d", "squeezenet1_1"];
const DEVICE: &str = "rtx-4090";

/// The number of nodes of a graph, and what needs what.
type Shape = (usize, Vec<(usize, usize)>);

/// Times of one graph in microseconds.
struct Times {
    bound: f64,
    one: f64,
    unlimited: f64,
    few: f64,
    streams: usize,
    events: usize,
}

/// Schedules the generated graphs and the models of the folder; gives false if one misses what is asked.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    let mut table = Table::new(&[
        "graph",
        ">nodes",
        ">edges",
        ">reduced",
        ">matching",
        ">least events",
        ">reached",
        ">streams",
        ">bound µs",
        ">one µs",
        ">unlimited µs",
        ">≤4 µs",
        ">above %",
        ">streams",
        ">events",
    ]);
    let mut missed = Vec::new();
    for (name, net) in [
        ("Inception-v3", inception_v3()),
        ("NASNet-like, 18 cells", nasnet_like(18)),
        ("RandWire, 3 stages", rand_wire(3, 5)),
        ("transformer, 12 layers", transformer(12)),
    ] {
        let times = simulated(&net).map_err(|e| format!("{name}: {e}"))?;
        row(name, net.nodes.len(), &net.edges, &times, &mut table, &mut missed)?;
    }
    for name in MODELS {
        let path = args.dir.join(name).join("model.pt2");
        let ((nodes, edges), times) = planned(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        row(name, nodes, &edges, &times, &mut table, &mut missed)?;
    }
    bench::publish("streams", &table, &missed, args)
}

fn row(
    name: &str,
    nodes: usize,
    edges: &[(usize, usize)],
    times: &Times,
    table: &mut Table,
    missed: &mut Vec<String>,
) -> Result<(), String> {
    let dag = Dag::new(nodes, edges).map_err(|e| format!("{name}: {e}"))?;
    let limits = Limits::default();
    let full = assign_unlimited(&dag, &limits);
    let events = synchronise(&dag, dag.topological(), &full.stream, &limits);
    let events = events.map_err(|e| format!("{name}: {e}"))?.events.len();
    let (reduced, matching) = least_events(nodes, edges);
    if events != reduced - matching {
        missed.push(format!("{name}: {events} events, and {} are enough", reduced - matching));
    }
    let above = times.few / times.unlimited - 1.0;
    if above > ABOVE_UNLIMITED || times.streams > STREAMS {
        missed.push(format!("{name}: {} streams take {:.1} % longer", times.streams, above * 100.0));
    }
    let counts = [nodes, dag.edge_count(), reduced, matching, reduced - matching, events, full.streams];
    let mut cells = vec![name.to_owned()];
    cells.extend(counts.iter().map(usize::to_string));
    cells.extend([times.bound, times.one, times.unlimited, times.few].map(|t| format!("{t:.1}")));
    cells.extend([format!("{:.1}", above * 100.0), times.streams.to_string(), times.events.to_string()]);
    table.row(cells);
    Ok(())
}

/// Simulated times of a generated graph.
fn simulated(net: &Net) -> Result<Times, djinn_schedule::ScheduleError> {
    let (dag, limits) = (net.dag(), Limits::default());
    let order = dag.topological();
    let full = assign_unlimited(&dag, &limits);
    let events = synchronise(&dag, order, &full.stream, &limits)?.events;
    let unlimited = simulate(&net.nodes, order, &full.stream, &events, EVENT)?.makespan;
    let few = assign(&dag, &net.nodes, &Options::new(STREAMS, EVENT), &limits)?;
    Ok(Times {
        bound: few.bound * 1e6,
        one: few.sequential * 1e6,
        unlimited: unlimited * 1e6,
        few: few.makespan * 1e6,
        streams: few.streams.iter().sum(),
        events: few.events.len(),
    })
}

/// The kernels of a model's plan, what needs what among them, and the times that the pass `streams` reports.
fn planned(path: &Path) -> Result<(Shape, Times), String> {
    let mut module = djinn::read(path).map_err(|e| e.to_string())?.module;
    let profile = Profile::named(DEVICE).map_err(|e| e.to_string())?;
    let request = PlanRequest::new(Target::single(profile));
    let planned = djinn::plan(&mut module, &request, None).map_err(|e| e.to_string())?;
    let count = |name: &str| planned.outcome.statistics.get("streams", name);
    let microseconds = |name: &str| count(name) as f64 * 1e-3;
    let times = Times {
        bound: microseconds("least ns of any schedule"),
        one: microseconds("simulated ns on one stream a device"),
        unlimited: microseconds("simulated ns with unlimited streams"),
        few: microseconds("simulated ns with streams"),
        streams: count("streams") as usize,
        events: count("events") as usize,
    };
    Ok((kernels(&module), times))
}

/// The kernel groups of all functions, and what needs what among them, directly or through operations without one.
fn kernels(module: &Module) -> Shape {
    let (mut nodes, mut edges) = (0, BTreeSet::new());
    for function in &module.functions {
        let mut number: BTreeMap<i64, usize> = BTreeMap::new();
        let mut makers: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (_, op) in function.graph.ops() {
            let sources: BTreeSet<usize> =
                op.operands.iter().filter_map(|v| makers.get(&v.0)).flatten().copied().collect();
            let kernel = match op.annotations.get("kernel") {
                Some(Attr::Int(kernel)) => Some(*number.entry(*kernel).or_insert_with(|| {
                    nodes += 1;
                    nodes - 1
                })),
                _ => None,
            };
            let made = match kernel {
                Some(kernel) => {
                    edges.extend(sources.into_iter().filter(|s| *s != kernel).map(|s| (s, kernel)));
                    BTreeSet::from([kernel])
                }
                None => sources,
            };
            makers.extend(op.results.iter().map(|v| (v.0, made.clone())));
        }
    }
    (nodes, edges.into_iter().collect())
}

/// Edges of the transitive reduction, and the size of a maximum matching of their ends: what is left over are the events
/// that full concurrency needs (Kwon et al., "Nimble", NeurIPS 2020, theorem 3). Shares nothing with the scheduler.
fn least_events(nodes: usize, edges: &[(usize, usize)]) -> (usize, usize) {
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes];
    edges.iter().for_each(|&(a, b)| {
        after[a].insert(b);
    });
    let reaches = |from: usize, to: usize| {
        let (mut seen, mut stack) = (BTreeSet::new(), vec![from]);
        while let Some(v) = stack.pop() {
            if v == to {
                return true;
            }
            stack.extend(after[v].iter().filter(|w| seen.insert(**w)));
        }
        false
    };
    let needed = |a: usize, b: usize| !after[a].iter().any(|&w| w != b && reaches(w, b));
    let kept: Vec<Vec<usize>> =
        (0..nodes).map(|a| after[a].iter().copied().filter(|&b| needed(a, b)).collect()).collect();
    let mut matched: Vec<Option<usize>> = vec![None; nodes];
    let size = (0..nodes).filter(|&a| augment(a, &kept, &mut matched, &mut vec![false; nodes])).count();
    (kept.iter().map(Vec::len).sum(), size)
}

/// Looks for a way to match one more node (Kuhn's algorithm).
fn augment(a: usize, edges: &[Vec<usize>], matched: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for &b in &edges[a] {
        if std::mem::replace(&mut seen[b], true) {
            continue;
        }
        if matched[b].is_none_or(|other| augment(other, edges, matched, seen)) {
            matched[b] = Some(a);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortcut_needs_no_event() {
        // A diamond with an edge from its top to its bottom: four edges are left, two of them within streams.
        assert_eq!(least_events(4, &[(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)]), (4, 2));
        assert_eq!(least_events(2, &[]), (0, 0));
    }
}
