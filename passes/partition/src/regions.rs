//! Engine regions: the fewest sets of supported operations that can run one set after another.
//!
//! Every operation has a colour (its place, and whether an engine can hold it) and a level: along a dependence
//! the level rises by one where the colour changes. The operations of one level and one colour form a *class*.
//! Dependences never lead from a class to a lower level or to another class of its level, so the graph of
//! classes has no cycle and each is convex; with one place, where operations outside of engines start at level 0
//! and those inside at level 1, some path runs through as many engine classes as there are, so fewer are not
//! possible. Levels are counted once from the inputs and once from the outputs, and the smaller partition is
//! taken: with several places either may be smaller. The idea is that of the "partition stages" in TVM's and
//! Glow's graph partitioners.

use crate::body::{Body, Place};
use crate::supported::refusal;
use std::collections::BTreeMap;

/// The colour of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Colour {
    place: Place,
    engine: bool,
}

/// The classes of a body.
pub(crate) struct Regions {
    /// The class of every operation; classes are numbered by their first operation.
    pub(crate) class: Vec<u32>,
    /// The engine region of every operation that an engine holds, numbered by first operation.
    pub(crate) engine: Vec<Option<u32>>,
    /// How many engine regions there are.
    pub(crate) count: usize,
    /// Why each other operation is in none.
    pub(crate) refusals: Vec<Option<&'static str>>,
}

pub(crate) fn regions(body: &Body) -> Regions {
    let refusals: Vec<Option<&'static str>> =
        body.ops.iter().map(|(_, op)| refusal(body.graph, op)).collect();
    let colours: Vec<Colour> = body
        .places
        .iter()
        .zip(&refusals)
        .map(|(place, refusal)| Colour { place: *place, engine: refusal.is_none() })
        .collect();
    let early = classes(&colours, &early_levels(body, &colours));
    let late = classes(&colours, &late_levels(body, &colours));
    let (class, engine, count) = if late.2 < early.2 { late } else { early };
    Regions { class, engine, count, refusals }
}

fn rise(from: Colour, to: Colour) -> u32 {
    u32::from(from != to)
}

fn early_levels(body: &Body, colours: &[Colour]) -> Vec<u32> {
    let mut levels: Vec<u32> = Vec::with_capacity(body.len());
    for (position, colour) in colours.iter().enumerate() {
        let from = body.predecessors(position as u32).iter();
        let level = from.map(|p| levels[*p as usize] + rise(colours[*p as usize], *colour)).max();
        levels.push(level.unwrap_or(0).max(u32::from(colour.engine)));
    }
    levels
}

/// Levels counted down from the outputs; higher numbers run later.
fn late_levels(body: &Body, colours: &[Colour]) -> Vec<u32> {
    let mut levels = vec![0; body.len()];
    for (position, colour) in colours.iter().enumerate().rev() {
        let to = body.successors(position as u32).iter();
        let level = to.map(|s| levels[*s as usize] + rise(colours[*s as usize], *colour)).max();
        levels[position] = level.unwrap_or(0).max(u32::from(colour.engine));
    }
    let highest = levels.iter().copied().max().unwrap_or(0);
    levels.into_iter().map(|level| highest - level).collect()
}

/// Class and engine region of every operation, and the number of engine regions.
fn classes(colours: &[Colour], levels: &[u32]) -> (Vec<u32>, Vec<Option<u32>>, usize) {
    let mut known: BTreeMap<(u32, Colour), (u32, Option<u32>)> = BTreeMap::new();
    let mut engines = 0;
    let mut class = Vec::with_capacity(colours.len());
    let mut engine = Vec::with_capacity(colours.len());
    for (colour, level) in colours.iter().zip(levels) {
        let next = known.len() as u32;
        let found = known.entry((*level, *colour)).or_insert_with(|| {
            let number = colour.engine.then_some(engines);
            engines += u32::from(colour.engine);
            (next, number)
        });
        class.push(found.0);
        engine.push(found.1);
    }
    (class, engine, engines as usize)
}
