//! Engines cut at layers: where a region holds layers that come again (`repeat`), each is an engine of its own, so that
//! one engine, built once, serves all of them.
//!
//! Kernels are whole: one that belongs to two layers is of the one that its first operation is of. Only a layer that
//! one engine holds as a whole is cut out of it: where a layer is cut anyway (a cache is appended to in place, a
//! value leaves the device), the parts between two such cuts are alike already, and further cuts would only add launches.
//! What is left of the engine lies before, between and behind its layers, and is cut by levels as
//! [`crate::engines`] does, each part as early as it can be, but what no layer waits for as late.

use crate::engines::Acts;
use std::collections::{BTreeMap, BTreeSet};

/// Layers that an engine must hold for it to be cut: the first and the last are seldom like those between them.
const MIN_LAYERS: usize = 3;

/// What a part of an engine is: the layer, or what is left.
type Part = (u32, Option<u32>);

/// What an engine says of its end if it was cut here.
pub(crate) const LAYER: &str = "layers come again: one engine can serve all of them";

/// What is known of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// The layer that it is of.
    pub(crate) layer: Option<u32>,
    /// Equal for kernels that do the same.
    pub(crate) work: u64,
}

/// The engine of every kernel, and by new number the engine that it was a part of.
pub(crate) type Cut = (Vec<Option<u32>>, BTreeMap<u32, u32>);

/// The engines of kernels, and of everything else that runs, with layers cut out of them; `None` if there is nothing to
/// cut. First come the kernels, then so many views.
///
/// Numbers ascend in an order of execution; the second is the engine that each was cut out of.
pub(crate) fn cut(acts: &Acts, engines: &[Option<u32>], kernels: &[Member], views: usize) -> Option<Cut> {
    let mut parts = parts(engines, kernels)?;
    parts.resize(acts.needs.len(), None);
    // Views are with whatever makes what they are of.
    for view in kernels.len()..kernels.len() + views {
        let Some(engine) = engines[view] else { continue };
        let made = acts.needs[view].iter().filter_map(|maker| parts[*maker]);
        let makers: BTreeSet<Part> = made.filter(|(of, _)| *of == engine).collect();
        parts[view] = match makers.len() {
            0 => None,
            1 => makers.first().copied(),
            _ => Some((engine, None)),
        };
    }
    keep_alike(acts, kernels, &mut parts);
    parts.iter().flatten().find(|(_, layer)| layer.is_some())?;
    let nodes = Nodes::new(acts, &parts, true).or_else(|| Nodes::new(acts, &parts, false))?;
    let levels = nodes.levels();
    let place = |act: usize| Some((levels[nodes.of[act]], parts[act]?));
    let mut known: BTreeMap<(u32, Part), u32> =
        (0..parts.len()).filter_map(place).map(|key| (key, 0)).collect();
    known.values_mut().zip(0..).for_each(|(number, next)| *number = next);
    let of = known.iter().map(|((_, (engine, _)), number)| (*number, *engine)).collect();
    let number = |act: usize| place(act).and_then(|key| known.get(&key).copied());
    Some(((0..parts.len()).map(number).collect(), of))
}

/// The part of every kernel.
fn parts(engines: &[Option<u32>], kernels: &[Member]) -> Option<Vec<Option<Part>>> {
    let mut homes: BTreeMap<u32, BTreeSet<Option<u32>>> = BTreeMap::new();
    for (kernel, engine) in kernels.iter().zip(engines) {
        if let Some(layer) = kernel.layer {
            homes.entry(layer).or_default().insert(*engine);
        }
    }
    let mut whole: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for (layer, homes) in &homes {
        if let (1, Some(Some(engine))) = (homes.len(), homes.first()) {
            whole.entry(*engine).or_default().insert(*layer);
        }
    }
    whole.retain(|_, layers| layers.len() >= MIN_LAYERS);
    let part = |(kernel, engine): (&Member, &Option<u32>)| {
        let engine = (*engine)?;
        let layer = kernel.layer.filter(|l| whole.get(&engine).is_some_and(|layers| layers.contains(l)));
        Some((engine, layer))
    };
    (!whole.is_empty()).then(|| kernels.iter().zip(engines).map(part).collect())
}

/// Leaves a layer in its engine if no other layer does the same and hands on the same: the first and the last, say,
/// whose kernels reach into what lies around the layers.
fn keep_alike(acts: &Acts, kernels: &[Member], parts: &mut [Option<Part>]) {
    let mut leaves = vec![false; parts.len()];
    for (act, makers) in acts.needs.iter().enumerate() {
        makers.iter().filter(|m| parts[**m] != parts[act]).for_each(|m| leaves[*m] = true);
    }
    let mut work: BTreeMap<Part, Vec<(u64, bool)>> = BTreeMap::new();
    for (act, part) in parts.iter().enumerate() {
        if let Some(part @ (_, Some(_))) = part {
            let own = kernels.get(act).map_or(0, |k| k.work);
            work.entry(*part).or_default().push((own, leaves[act]));
        }
    }
    work.values_mut().for_each(|work| work.sort_unstable());
    let mut alike: BTreeMap<&[(u64, bool)], usize> = BTreeMap::new();
    work.values().for_each(|work| *alike.entry(work).or_default() += 1);
    for part in parts.iter_mut().flatten() {
        let lonely = work.get(part).is_some_and(|work| alike.get(work.as_slice()) == Some(&1));
        part.1 = part.1.filter(|_| !lonely);
    }
}

/// Acts that run as one are one node; the graph of nodes has no cycle.
struct Nodes {
    /// The node of every act.
    of: Vec<usize>,
    /// Nodes that each needs, without itself.
    needs: Vec<BTreeSet<usize>>,
    /// What each is of.
    parts: Vec<Option<Part>>,
    /// An order of execution.
    order: Vec<usize>,
}

impl Nodes {
    /// Every act is a node by itself, but those of an engine without layers are one, and those of a layer if `whole`; `None`
    /// if one waits for itself.
    fn new(acts: &Acts, parts: &[Option<Part>], whole: bool) -> Option<Nodes> {
        let layered: BTreeSet<u32> =
            parts.iter().flatten().filter(|(_, layer)| layer.is_some()).map(|(engine, _)| *engine).collect();
        // Layers, and engines that stay as they are.
        let is_one = |(engine, layer): &Part| match layer {
            Some(_) => whole,
            None => !layered.contains(engine),
        };
        let mut of = Vec::with_capacity(parts.len());
        let mut nodes: Vec<Option<Part>> = Vec::new();
        let mut known: BTreeMap<Part, usize> = BTreeMap::new();
        for part in parts {
            let one = part.filter(is_one);
            let node = one.map_or(nodes.len(), |part| *known.entry(part).or_insert(nodes.len()));
            if node == nodes.len() {
                nodes.push(*part);
            }
            of.push(node);
        }
        let mut needs = vec![BTreeSet::new(); nodes.len()];
        for (act, makers) in acts.needs.iter().enumerate() {
            needs[of[act]].extend(makers.iter().map(|m| of[*m]).filter(|m| *m != of[act]));
        }
        let order = order(&needs)?;
        Some(Nodes { of, needs, parts: nodes, order })
    }

    /// By node, how often the part changes on the way to it, at most; of what no layer waits for, as late as it may be.
    fn levels(&self) -> Vec<u32> {
        let rise = |a: usize, b: usize| u32::from(self.parts[a] != self.parts[b]);
        let mut early = vec![0u32; self.order.len()];
        for node in &self.order {
            let before = self.needs[*node].iter().map(|n| early[*n] + rise(*n, *node));
            early[*node] = before.max().unwrap_or(0);
        }
        let highest = early.iter().copied().max().unwrap_or(0);
        let mut late = vec![highest; self.order.len()];
        let is_layer = |part: &Option<Part>| part.is_some_and(|(_, layer)| layer.is_some());
        let mut awaited: Vec<bool> = self.parts.iter().map(is_layer).collect();
        for node in self.order.iter().rev() {
            for need in &self.needs[*node] {
                late[*need] = late[*need].min(late[*node].saturating_sub(rise(*need, *node)));
                awaited[*need] |= awaited[*node];
            }
        }
        // Whoever uses what no layer waits for is not waited for by a layer either, so levels never fall.
        (0..early.len()).map(|n| if awaited[n] { early[n] } else { late[n] }).collect()
    }
}

/// The nodes in an order of execution; `None` if there is a cycle.
fn order(needs: &[BTreeSet<usize>]) -> Option<Vec<usize>> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (node, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|n| users[*n].push(node));
    }
    let mut missing: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut order: Vec<usize> = (0..needs.len()).filter(|n| missing[*n] == 0).collect();
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        for user in &users[node] {
            missing[*user] -= 1;
            if missing[*user] == 0 {
                order.push(*user);
            }
        }
    }
    (order.len() == needs.len()).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(layers: &[Option<u32>]) -> Vec<Member> {
        layers.iter().map(|layer| Member { layer: *layer, work: 0 }).collect()
    }

    fn acts(needs: &[&[usize]]) -> Acts {
        let needs: Vec<BTreeSet<usize>> = needs.iter().map(|n| n.iter().copied().collect()).collect();
        Acts { regions: vec![None; needs.len()], needs }
    }

    #[test]
    fn layers_become_engines_and_the_rest_lies_around_them() {
        // 0 before; layers 1-2, 3-4 and 5-6; 7 uses 0 only and 8 the last layer, so both lie behind.
        let acts = acts(&[&[], &[0], &[1], &[2], &[3], &[4], &[5], &[0], &[6]]);
        let layers = [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None, None];
        let (numbers, of) = cut(&acts, &[Some(7); 9], &members(&layers), 0).expect("layers");
        assert_eq!(numbers, [0, 1, 1, 2, 2, 3, 3, 4, 4].map(Some));
        assert!(of.len() == 5 && of.values().all(|engine| *engine == 7));
        let mut other = members(&layers);
        other[1].work = 1;
        let (numbers, _) = cut(&acts, &[Some(7); 9], &other, 0).expect("layers");
        assert_eq!(numbers, [0, 0, 0, 1, 1, 2, 2, 3, 3].map(Some), "the first layer is like no other");
        other[3].work = 2;
        assert!(cut(&acts, &[Some(7); 9], &other, 0).is_none(), "all are different");
    }

    #[test]
    fn layers_that_are_cut_anyway_are_not_cut_again() {
        let acts = acts(&[&[], &[0], &[1], &[2], &[3], &[4]]);
        let layers = members(&[Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]);
        assert!(cut(&acts, &[Some(0), None, Some(1), None, Some(2), None], &layers, 0).is_none());
        assert!(cut(&acts, &[Some(0); 6], &members(&[None; 6]), 0).is_none());
        assert!(cut(&acts, &[Some(0); 6], &members(&[Some(0); 6]), 0).is_none(), "one layer is no repeat");
        assert!(cut(&acts, &[Some(0); 6], &layers, 0).is_some());
    }

    #[test]
    fn layers_that_wait_for_themselves_are_cut_by_levels() {
        // Layer 0 is 0 and 2, with half of layer 1 in between, and so on.
        let acts = acts(&[&[], &[0], &[1], &[2], &[3], &[4]]);
        let layers = members(&[Some(0), Some(1), Some(0), Some(1), Some(2), Some(2)]);
        let (numbers, _) = cut(&acts, &[Some(0); 6], &layers, 0).expect("layers");
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn parts_of_random_graphs_never_wait_for_themselves() {
        let mut state = 3u64;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n.max(1)
        };
        let (mut several, mut tried) = (0, 0);
        for case in 0..2000 {
            let kernels = 2 + random(30);
            let views = random(6);
            let needs: Vec<BTreeSet<usize>> =
                (0..kernels + views).map(|i| (0..random(4).min(i)).map(|_| random(i)).collect()).collect();
            let acts = Acts { regions: vec![None; needs.len()], needs };
            let count = 1 + random(6);
            let tidy = case % 2 == 0;
            let layers: Vec<Option<u32>> = (0..kernels)
                .map(|i| if tidy { i * (count + 1) / kernels } else { random(count + 1) })
                .map(|l| u32::try_from(l).ok().filter(|l| *l > 0))
                .collect();
            let outside = random(4) == 0;
            let mut engines: Vec<Option<u32>> =
                (0..kernels).map(|_| (!outside || random(8) > 0).then_some(0)).collect();
            // Views of something in the engine are in it.
            for view in kernels..kernels + views {
                let inside = acts.needs[view].iter().any(|m| engines[*m].is_some());
                engines.push(inside.then_some(0));
            }
            if acts.waits_for_itself(&engines) {
                continue;
            }
            let Some((numbers, _)) = cut(&acts, &engines, &members(&layers), views) else { continue };
            tried += 1;
            assert!(!acts.waits_for_itself(&numbers), "case {case}");
            assert!(numbers.iter().zip(&engines).take(kernels).all(|(n, e)| n.is_some() == e.is_some()));
            let different: BTreeSet<u32> = numbers.iter().flatten().copied().collect();
            several += usize::from(different.len() > 2);
            for (act, makers) in acts.needs.iter().enumerate() {
                for maker in makers {
                    let (Some(from), Some(to)) = (numbers[*maker], numbers[act]) else { continue };
                    assert!(from <= to, "case {case}: numbers ascend along dependences");
                }
            }
        }
        assert!(tried > 200 && several > 200, "{tried} tried, {several} with several parts");
    }
}
