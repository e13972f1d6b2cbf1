//! Entries whose launches are whole engine regions: their units, made of those of the entry of kernels for the same
//! function and sizes.
//!
//! The operations of each region are one unit, so that storage, order and events reckon with the region as a whole. A
//! region stays the kernels that it is where as one unit it would wait for itself: so it would where it reads a cache
//! before something is appended to that in place and also what is made of the longer cache. Regions wait for nothing that
//! waits for them otherwise ([`crate::engines`]).

use crate::places::Places;
use crate::units::{Unit, UnitKind};
use djinn_diag::{Remark, RemarkKind};
use djinn_ir::{Graph, OpId, SymbolTable, ValueId};
use djinn_lifetime::StorageKind;
use djinn_plan::Engine;
use std::collections::{BTreeMap, BTreeSet};

/// What is kept of an entry of kernels for the entry that is made of its regions.
#[derive(Debug)]
pub(crate) struct Apart {
    /// Number of the function.
    pub(crate) function: usize,
    pub(crate) symbols: SymbolTable,
    pub(crate) ahead: Vec<bool>,
    pub(crate) units: Vec<Unit>,
    /// Outputs that are written over the input that they are the new content of.
    pub(crate) renewed: BTreeMap<ValueId, ValueId>,
    /// Units that read a state or cache before others write over it, and those.
    before: Vec<(usize, usize)>,
    /// Number of the entry in the plan.
    pub(crate) entry: usize,
}

impl Apart {
    /// Of an entry that is about to be drafted.
    pub(crate) fn new(
        graph: &Graph,
        (function, symbols, ahead): (usize, &SymbolTable, &[bool]),
        units: &[Unit],
        places: &Places,
        entry: usize,
    ) -> Apart {
        let storage = &places.storage;
        let kept = |v: &ValueId| {
            let kind = storage.root[v.0 as usize].map(|root| storage.buffers[root.index()].kind);
            matches!(kind, Some(StorageKind::Input(_) | StorageKind::State(_)))
        };
        let writes_kept = |u: usize| units[u].ops.iter().flat_map(|id| &graph.op(*id).results).any(kept);
        Apart {
            function,
            symbols: symbols.clone(),
            ahead: ahead.to_vec(),
            units: units.to_vec(),
            renewed: places.renewed.clone(),
            before: storage.must_precede.iter().copied().filter(|(_, u)| writes_kept(*u)).collect(),
            entry,
        }
    }

    /// The units with every engine as one, in an order of execution that is the one of the kernels otherwise, and remarks on
    /// engines that stay apart. `None` if no engine is left.
    pub(crate) fn merged(&self, graph: &Graph, engines: &[Engine]) -> (Option<Vec<Unit>>, Vec<String>) {
        let mut left: Vec<&Engine> = engines.iter().collect();
        let mut remarks = Vec::new();
        loop {
            if left.is_empty() {
                return (None, remarks);
            }
            let parts = Parts::new(graph, self, &left);
            match parts.order() {
                Ok(units) => return (Some(units), remarks),
                Err(stuck) => {
                    // The one with the least work, and of those the last.
                    let least = |e: &&Engine| (ordered(e.flops), u32::MAX - e.number);
                    let Some(out) =
                        left.iter().copied().filter(|e| stuck.contains(&e.number)).min_by_key(least)
                    else {
                        remarks.push("the kernels wait for one another".into());
                        return (None, remarks);
                    };
                    left.retain(|e| e.number != out.number);
                    remarks.push(format!(
                        "engine {} is launched kernel by kernel: as a whole it would wait for what waits for it",
                        out.number
                    ));
                }
            }
        }
    }
}

/// A remark on an engine that has to stay kernels.
pub(crate) fn missed(function: &str, message: String) -> Remark {
    let (pass, rule, place) = ("planner".into(), "engine".into(), function.to_owned());
    Remark { kind: RemarkKind::Missed, pass, rule, place, message }
}

/// Numbers that are not negative, in the order of their bits, which is their own.
fn ordered(figure: f64) -> u64 {
    figure.to_bits()
}

/// Units, with those of one engine together.
struct Parts {
    units: Vec<Unit>,
    /// What each needs.
    needs: Vec<BTreeSet<usize>>,
}

impl Parts {
    fn new(graph: &Graph, apart: &Apart, engines: &[&Engine]) -> Parts {
        let ids: Vec<OpId> = graph.ops().map(|(id, _)| id).collect();
        let mut number_of: BTreeMap<OpId, u32> = BTreeMap::new();
        for engine in engines {
            let ops = engine.ops.iter().filter_map(|op| ids.get(*op as usize));
            number_of.extend(ops.map(|id| (*id, engine.number)));
        }
        let mut units: Vec<Unit> = Vec::new();
        let mut at: BTreeMap<u32, usize> = BTreeMap::new();
        let mut part_of: BTreeMap<OpId, usize> = BTreeMap::new();
        for unit in &apart.units {
            let in_none = unit.ops.iter().all(|id| !number_of.contains_key(id));
            let first = units.len();
            for id in &unit.ops {
                let (part, kind) = match number_of.get(id) {
                    Some(number) => (*at.entry(*number).or_insert(units.len()), UnitKind::Engine(*number)),
                    // Of a group of views, some may be in an engine.
                    None => (if in_none { first } else { units.len() }, unit.kind),
                };
                if part == units.len() {
                    units.push(Unit { kind, ops: Vec::new() });
                }
                units[part].ops.push(*id);
                part_of.insert(*id, part);
            }
        }
        let place: BTreeMap<OpId, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        for unit in units.iter_mut().filter(|u| matches!(u.kind, UnitKind::Engine(_))) {
            unit.ops.sort_by_key(|id| place[id]);
        }
        let mut needs = vec![BTreeSet::new(); units.len()];
        for (id, part) in &part_of {
            let makers = graph.op(*id).operands.iter().filter_map(|v| graph.definition(*v));
            needs[*part].extend(makers.filter_map(|(maker, _)| part_of.get(&maker).copied()));
        }
        // Who writes over a state or cache is in no engine, or it is not written in place any more.
        for (reader, writer) in &apart.before {
            let parts = |u: usize| apart.units[u].ops.iter().filter_map(|id| part_of.get(id).copied());
            let alone = |part: &usize| !matches!(units[*part].kind, UnitKind::Engine(_));
            for part in parts(*writer).filter(alone) {
                needs[part].extend(parts(*reader));
            }
        }
        needs.iter_mut().enumerate().for_each(|(part, needs)| {
            needs.remove(&part);
        });
        Parts { units, needs }
    }

    /// The units in an order of execution, or the numbers of the engines that wait for themselves.
    fn order(self) -> Result<Vec<Unit>, BTreeSet<u32>> {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.units.len()];
        for (part, needs) in self.needs.iter().enumerate() {
            needs.iter().for_each(|n| users[*n].push(part));
        }
        let forward = settled(&self.needs, &users);
        if forward.len() == self.units.len() {
            let mut slots: Vec<Option<Unit>> = self.units.into_iter().map(Some).collect();
            return Ok(forward.into_iter().filter_map(|part| slots[part].take()).collect());
        }
        // What is left when nothing is taken from either end any more lies on cycles or between them.
        let needed: Vec<BTreeSet<usize>> = users.iter().map(|u| u.iter().copied().collect()).collect();
        let needs: Vec<Vec<usize>> = self.needs.iter().map(|n| n.iter().copied().collect()).collect();
        let backward = settled(&needed, &needs);
        let done: BTreeSet<usize> = forward.into_iter().chain(backward).collect();
        let stuck = self.units.iter().enumerate().filter(|(part, _)| !done.contains(part));
        let number = |unit: &Unit| match unit.kind {
            UnitKind::Engine(number) => Some(number),
            UnitKind::Kernel | UnitKind::Transfer => None,
        };
        Err(stuck.filter_map(|(_, unit)| number(unit)).collect())
    }
}

/// What can run, the first in the list first (Kahn: "Topological sorting of large networks", CACM 1962).
fn settled(needs: &[BTreeSet<usize>], users: &[Vec<usize>]) -> Vec<usize> {
    let mut open: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut ready: BTreeSet<usize> = (0..open.len()).filter(|part| open[*part] == 0).collect();
    let mut order = Vec::with_capacity(open.len());
    while let Some(part) = ready.pop_first() {
        order.push(part);
        for user in &users[part] {
            open[*user] -= 1;
            if open[*user] == 0 {
                ready.insert(*user);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use crate::{EntrySpec, PlanOptions, plan_with};
    use djinn_device::{Profile, Target};
    use djinn_ir::{Module, text};
    use djinn_plan::{Entry, Granularity};

    /// Appends to two caches, and reads the old values of one after the new ones of the other.
    const CACHES: &str = r#"
"builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<4x8xf32>, %1: tensor<4x8xf32>, %2: tensor<4x8xf32>):
    %3 = "djinn.relu"(%0) {djinn.engine = 0, djinn.kernel = 0} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %4 = "djinn.concat"(%1, %3) {axis = 0, djinn.engine = 0, djinn.kernel = 1} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
    %5 = "djinn.softmax"(%4) {axis = 1, djinn.engine = 0, djinn.kernel = 2} : (tensor<8x8xf32>) -> tensor<8x8xf32>
    %6 = "djinn.slice"(%5) {axis = 0, start = "0", limit = "4", stride = 1, djinn.engine = 0, djinn.kernel = 3} : (tensor<8x8xf32>) -> tensor<4x8xf32>
    %7 = "djinn.add"(%6, %2) {djinn.engine = 0, djinn.kernel = 4} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
    %8 = "djinn.concat"(%2, %3) {axis = 0, djinn.engine = 0, djinn.kernel = 5} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
    %9 = "djinn.add"(%8, %5) {djinn.engine = 0, djinn.kernel = 6} : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
    "djinn.return"(%7, %9, %4, %8) : (tensor<4x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>) -> ()
  }) {arguments = [{kind = "input", name = "x"}, {kind = "input", name = "k"}, {kind = "input", name = "v"}], results = [{kind = "output", name = "a"}, {kind = "output", name = "b"}, {kind = "output", name = "new_k"}, {kind = "output", name = "new_v"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;

    fn planned(module: &Module, resident: &[&str]) -> (Vec<Entry>, Vec<String>) {
        let kernels = EntrySpec {
            function: "main".into(),
            resident: resident.iter().map(|n| (*n).into()).collect(),
            ..EntrySpec::default()
        };
        let engines = EntrySpec { granularity: Granularity::Engines, ..kernels.clone() };
        let target = Target::single(Profile::named("h100-80").expect("built in"));
        let mut remarks = Vec::new();
        let plan = plan_with(module, &target, &[kernels, engines], &PlanOptions::default(), &mut remarks);
        let plan = plan.unwrap_or_else(|e| panic!("{e}"));
        djinn_plan::check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
        crate::conforms(&plan, module).unwrap_or_else(|e| panic!("{e}"));
        (plan.entries, remarks.into_iter().map(|r| r.message).collect())
    }

    fn engines(entry: &Entry) -> Vec<(u32, usize)> {
        entry.engines.iter().map(|e| (e.number, e.kernels.len())).collect()
    }

    #[test]
    fn an_engine_that_would_wait_for_itself_stays_kernels() {
        let module = text::parse_module(CACHES).unwrap_or_else(|e| panic!("{e}"));
        let (entries, remarks) = planned(&module, &["k", "v", "new_k", "new_v"]);
        let [kernels, whole] = entries.as_slice() else { panic!("{}", entries.len()) };
        assert_eq!(engines(kernels), [(0, 1), (1, 3)], "{kernels:#?}");
        // The second one reads `v` before it is appended to, and what is appended to it.
        assert_eq!(engines(whole), [(0, 1)]);
        assert!(
            remarks.len() == 1 && remarks[0].starts_with("engine 1 is launched kernel by kernel"),
            "{remarks:?}"
        );
        let places = |e: &Entry| -> Vec<_> {
            e.inputs.iter().chain(&e.outputs).filter(|p| p.resident).map(|p| p.view).collect()
        };
        assert_eq!(places(kernels), places(whole));
        let buffers: std::collections::BTreeSet<_> =
            places(whole).into_iter().flatten().map(|v| v.buffer).collect();
        assert_eq!(buffers.len(), 2, "caches are appended to in place");
    }

    #[test]
    fn an_engine_takes_all_where_nothing_stays() {
        let module = text::parse_module(CACHES).unwrap_or_else(|e| panic!("{e}"));
        let (entries, remarks) = planned(&module, &[]);
        assert!(remarks.is_empty(), "{remarks:?}");
        let [kernels, whole] = entries.as_slice() else { panic!("{}", entries.len()) };
        assert_eq!((engines(kernels).len(), engines(whole)), (1, vec![(0, 1)]));
        let [only] = whole.kernels.as_slice() else { panic!("{:#?}", whole.kernels) };
        assert_eq!(only.ops, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(only.name, "engine 0: relu+concat+softmax+slice+3 more");
        assert!(only.seconds < kernels.engines[0].seconds && only.seconds > 0.0);
        assert_eq!(only.flops, kernels.engines[0].flops);
    }

    #[test]
    fn an_entry_of_engines_needs_one_of_kernels_before_it() {
        let module = text::parse_module(CACHES).unwrap_or_else(|e| panic!("{e}"));
        let spec =
            EntrySpec { function: "main".into(), granularity: Granularity::Engines, ..EntrySpec::default() };
        let target = Target::single(Profile::named("h100-80").expect("built in"));
        let refused = crate::plan(&module, &target, &[spec], &PlanOptions::default()).expect_err("alone");
        assert_eq!(refused.code, "plan.granularity");
    }
}
