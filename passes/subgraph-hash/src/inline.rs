//! `inline`: calls become the bodies of the functions they call.
//!
//! Requires: a verified module. Ensures: a verified module without private functions that computes the same.
//! Preserves: signatures, order of operations.

use crate::scopes;
use crate::sequence::may_move;
use djinn_diag::{Context, RemarkKind, Result, internal, unsupported};
use djinn_ir::graph::Definition;
use djinn_ir::{Graph, Module, Op, OpKind, Patch, PatchOutcome, ValueId, walk};
use djinn_pass::{Pass, PassContext, PassInfo};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What the pass manager knows of `inline`.
pub static INLINE: PassInfo = PassInfo {
    name: "inline",
    summary: "puts the bodies of private functions in the place of their calls",
    requires: "a verified module",
    ensures: "no calls, no private functions, and no two equal operations where there were calls",
    preserves: "signatures, results bit for bit, order of operations",
    options: &[],
};

/// Calls inside calls, at most.
const MAX_CALL_DEPTH: usize = 64;

/// Operations of a function after inlining, at most: calls of calls can make exponentially many.
const MAX_OPERATIONS: usize = 1 << 22;

/// The pass.
#[derive(Debug, Default)]
pub struct Inline;

impl Pass for Inline {
    fn info(&self) -> &'static PassInfo {
        &INLINE
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        for i in 0..module.functions.len() {
            let f = &module.functions[i];
            if f.is_private() {
                continue;
            }
            let calls = walk::callees(&f.graph).len();
            if calls == 0 {
                continue;
            }
            let name = Arc::clone(&f.name);
            let body = inlined(module, &f.graph).at(|| format!("function '{name}'"))?;
            let patch = Patch::replace_body(INLINE.name, body);
            let report = cx.apply(patch, &mut module.functions[i].graph)?;
            if report.outcome == PatchOutcome::Applied {
                cx.count("calls", calls as u64);
                cx.remark(RemarkKind::Applied, "call", &name, format!("{calls} calls inlined"));
            }
        }
        drop_uncalled(module);
        Ok(())
    }
}

/// Removes private functions that no entry function calls, directly or not.
fn drop_uncalled(module: &mut Module) {
    let mut called: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut pending: Vec<&Graph> = module.entries().map(|f| &f.graph).collect();
    while let Some(graph) = pending.pop() {
        for name in walk::callees(graph) {
            if let Some(f) = module.function(name)
                && called.insert(Arc::clone(&f.name))
            {
                pending.push(&f.graph);
            }
        }
    }
    module.functions.retain(|f| !f.is_private() || called.contains(&f.name));
}

/// The body with all calls inlined.
///
/// # Errors
/// `unsupported` if it would become too large; internal diagnostics if the module is not well formed.
pub fn inlined(module: &Module, graph: &Graph) -> Result<Graph> {
    let functions = module.functions.iter().filter(|f| f.is_private()).map(|f| (&*f.name, &f.graph));
    let mut budget = MAX_OPERATIONS;
    inlined_graph(&functions.collect(), graph, &mut budget)
}

/// Private functions by name.
type Functions<'m> = BTreeMap<&'m str, &'m Graph>;

fn inlined_graph(functions: &Functions<'_>, graph: &Graph, budget: &mut usize) -> Result<Graph> {
    let mut out = Inliner { functions, body: Graph::new(), known: HashMap::new(), budget };
    let arguments: Vec<ValueId> =
        graph.arguments.iter().map(|v| out.body.add_argument(graph.ty(*v).clone())).collect();
    let results = out.expand(graph, &arguments, &[])?;
    out.body.results = results;
    Ok(out.body)
}

struct Inliner<'f, 'm> {
    functions: &'f Functions<'m>,
    body: Graph,
    /// Pure operations of one result that the body has, by a hash of what they are.
    known: HashMap<u64, Vec<ValueId>>,
    budget: &'f mut usize,
}

impl Inliner<'_, '_> {
    /// Appends the operations of a graph whose arguments are these values; gives its results. `calls` are the calls
    /// around it, outermost first.
    fn expand(&mut self, graph: &Graph, arguments: &[ValueId], calls: &[&Op]) -> Result<Vec<ValueId>> {
        if calls.len() > MAX_CALL_DEPTH {
            let message = format!("more than {MAX_CALL_DEPTH} calls lie inside each other");
            return Err(unsupported("inline.depth", message));
        }
        let mut values: Vec<Option<ValueId>> = vec![None; graph.value_capacity()];
        for (v, new) in graph.arguments.iter().zip(arguments) {
            values[v.0 as usize] = Some(*new);
        }
        let get = |values: &[Option<ValueId>], v: &ValueId| {
            let known = values.get(v.0 as usize).copied().flatten();
            known.ok_or_else(|| internal("inline.value", format!("%{} is used before it is defined", v.0)))
        };
        for (_, op) in graph.ops() {
            let operands: Vec<ValueId> =
                op.operands.iter().map(|v| get(&values, v)).collect::<Result<_>>()?;
            let results = match op.kind {
                OpKind::Call => {
                    let name = op.attrs.str("callee");
                    let Some(callee) = self.functions.get(name) else {
                        return Err(internal("inline.callee", format!("there is no function '{name}'")));
                    };
                    let calls: Vec<&Op> = calls.iter().copied().chain([op]).collect();
                    self.expand(callee, &operands, &calls)?
                }
                _ => self.operation(graph, op, operands, calls)?,
            };
            for (v, new) in op.results.iter().zip(results) {
                values[v.0 as usize] = Some(new);
            }
        }
        graph.results.iter().map(|v| get(&values, v)).collect()
    }

    fn operation(
        &mut self,
        graph: &Graph,
        op: &Op,
        operands: Vec<ValueId>,
        calls: &[&Op],
    ) -> Result<Vec<ValueId>> {
        let mergeable = (may_move(op) && op.results.len() == 1).then(|| hash(op, &operands));
        if let Some(known) = mergeable.and_then(|h| self.equal(h, op, &operands)) {
            return Ok(vec![known]);
        }
        *self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            let message = format!("inlining would make more than {MAX_OPERATIONS} operations");
            unsupported("inline.size", message)
        })?;
        let location = calls.iter().rev().fold(op.location.clone(), |l, call| scopes::of_instance(call, &l));
        let regions = op
            .regions
            .iter()
            .map(|r| inlined_graph(self.functions, r, self.budget))
            .collect::<Result<_>>()?;
        let types = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let id = self.body.push(op.kind, operands, op.attrs.clone(), regions, types, location);
        for (name, value) in &op.annotations {
            self.body.annotate(id, name, value.clone());
        }
        let results = self.body.op(id).results.clone();
        if let Some(h) = mergeable {
            self.known.entry(h).or_default().extend(&results);
        }
        Ok(results)
    }

    /// The result of an equal operation in the body so far.
    fn equal(&self, hash: u64, op: &Op, operands: &[ValueId]) -> Option<ValueId> {
        let same = |v: &&ValueId| match self.body.value(**v).def {
            Definition::Result(id, _) => {
                let other = self.body.op(id);
                (other.kind, &other.attrs, &other.annotations) == (op.kind, &op.attrs, &op.annotations)
                    && other.operands == operands
            }
            Definition::Argument(_) => false,
        };
        self.known.get(&hash)?.iter().find(same).copied()
    }
}

fn hash(op: &Op, operands: &[ValueId]) -> u64 {
    let mut h = DefaultHasher::new();
    (op.kind, &op.attrs, &op.annotations, operands).hash(&mut h);
    h.finish()
}
