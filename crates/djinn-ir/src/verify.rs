//! The whole-module check.
//!
//! [`verify`] assumes nothing: a module put together by hand with foreign ids, wrong types or dangling names gives a
//! diagnostic, never a panic. Codes are the labels of [`LABELS`] and of the op table's constraints.

use crate::dim::Dim;
use crate::graph::{
    ArgumentKind, Definition, Function, Graph, Location, Module, Op, OpId, ResultKind, ValueId,
};
use crate::infer::infer;
use crate::ops::{OpKind, traits};
use crate::patch::types_agree;
use crate::types::TensorType;
use crate::walk;
use djinn_diag::{Context, Diagnostic, Result, input, internal};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Constraints that the verifier checks beside those of the op table, by label.
pub const LABELS: &[(&str, &str)] = &[
    ("graph.C1", "every id names a value or an operation of its own graph"),
    ("graph.C2", "every value is defined exactly once"),
    ("graph.C3", "every value is defined before its use"),
    ("graph.C4", "the declared result types are those that operands and attributes give"),
    ("graph.C5", "regions nest at most 32 deep"),
    ("type.C1", "no size is negative"),
    ("type.C2", "no size overflows"),
    ("function.C1", "function names are unique and not empty"),
    ("function.C2", "arguments and results are as many as those of the body"),
    ("function.C3", "an update names an argument, at most one update each, of an agreeing type"),
    ("function.C4", "the first value of a state is a weight of the module of an agreeing type"),
    (
        "function.C5",
        "an entry function has no weight arguments; a private one has no states and updates nothing",
    ),
    (
        "function.C6",
        "sizes of a private function's data-dependent results are made of symbols of its arguments",
    ),
    ("module.C1", "a weight operation names a weight of the module with the same type and content hash"),
    ("module.C2", "a weight has constant sizes, and its content is of its type"),
    (
        "module.C3",
        "a call names a private function of the module that takes and gives values of the call's types",
    ),
    ("module.C4", "calls do not recurse"),
    ("module.C5", "a weight argument is bound to a value that is known ahead of time"),
    ("symbol.C1", "a symbol's name is a letter or underscore, then letters, digits or one of _ . $ : [ ]"),
    ("symbol.C2", "a symbol's range is not empty or negative, and its divisor is positive"),
];

/// Regions inside regions, at most.
pub const MAX_REGION_DEPTH: usize = 32;

/// Problems that [`diagnose`] lists, at most.
const MAX_DIAGNOSTICS: usize = 100;

/// Checks a module.
///
/// # Errors
/// The first problem in the order: symbols, weights, functions, operations in order of execution.
pub fn verify(module: &Module) -> Result<()> {
    let mut found = Vec::new();
    check_module(module, &mut found, 1);
    found.into_iter().next().map_or(Ok(()), |first| Err(Box::new(first)))
}

/// All problems of a module (up to a limit), at most one per function body.
pub fn diagnose(module: &Module) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    check_module(module, &mut found, MAX_DIAGNOSTICS);
    found
}

/// Checks one graph without its module: everything but names of weights.
///
/// # Errors
/// The first problem in order of execution.
pub fn verify_graph(graph: &Graph) -> Result<()> {
    check_graph(None, graph, 0, Vec::new())
}

fn check_module(module: &Module, found: &mut Vec<Diagnostic>, limit: usize) {
    let mut keep = |result: Result<()>| {
        if let Err(e) = result {
            found.push(*e);
        }
        found.len() < limit
    };
    if !keep(check_symbols(module)) || !keep(check_weights(module)) {
        return;
    }
    let mut names = BTreeSet::new();
    for f in &module.functions {
        let unique = if f.name.is_empty() || !names.insert(Arc::clone(&f.name)) {
            Err(violated("function.C1", format!("'{}' is not", f.name)))
        } else {
            Ok(())
        };
        let place = || format!("function '{}'", f.name);
        if !keep(unique)
            || !keep(check_function(module, f).at(place))
            || !keep(check_graph(Some(module), &f.graph, 0, walk::function_weights(f)).at(place))
            || !keep(check_fresh_symbols(f).at(place))
        {
            return;
        }
    }
    let _ = keep(check_recursion(module)) && keep(check_used_symbols(module));
}

/// A violated constraint of [`LABELS`].
fn violated(label: &str, what: impl Into<String>) -> Box<Diagnostic> {
    let text = LABELS.iter().find(|(l, _)| *l == label).map_or("?", |(_, text)| *text);
    let message = format!("{text}: {}", what.into());
    if label.starts_with("graph.") { internal(label, message) } else { input(label, message) }
}

/// Can a symbol of this name be written in text?
pub fn is_symbol_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | ':' | '[' | ']'))
        && name != "overflow"
}

fn check_symbols(module: &Module) -> Result<()> {
    for (symbol, info) in &module.symbols.0 {
        let place = || format!("symbol '{}'", symbol.name());
        if !is_symbol_name(symbol.name()) {
            return Err(violated("symbol.C1", format!("'{}' is not", symbol.name()))).at(place);
        }
        if info.min < 0 || info.divisor < 1 || info.max.is_some_and(|max| max < info.min) {
            let max = info.max.map_or("∞".to_string(), |m| m.to_string());
            let what = format!("{}..={max}, divisor {}", info.min, info.divisor);
            return Err(violated("symbol.C2", what)).at(place);
        }
    }
    Ok(())
}

fn check_used_symbols(module: &Module) -> Result<()> {
    match crate::walk::symbols(module).iter().find(|s| !is_symbol_name(s.name())) {
        Some(s) => Err(violated("symbol.C1", format!("'{}' is not", s.name()))),
        None => Ok(()),
    }
}

fn check_weights(module: &Module) -> Result<()> {
    for (name, weight) in &module.weights {
        let constant = weight.ty.const_shape().is_some();
        if !constant || weight.data.as_ref().is_some_and(|(_, data)| data.ty() != weight.ty) {
            let content = weight.data.as_ref().map(|(_, data)| data.ty().to_string());
            let what = format!("declared {}, content {}", weight.ty, content.as_deref().unwrap_or("absent"));
            return Err(violated("module.C2", what)).at(|| format!("weight '{name}'"));
        }
    }
    Ok(())
}

fn check_function(module: &Module, f: &Function) -> Result<()> {
    let (arguments, results) = (&f.graph.arguments, &f.graph.results);
    if f.arguments.len() != arguments.len() || f.results.len() != results.len() {
        let what = format!(
            "({}) -> ({}) is declared, the body has ({}) -> ({})",
            f.arguments.len(),
            f.results.len(),
            arguments.len(),
            results.len()
        );
        return Err(violated("function.C2", what));
    }
    let foreign = |(_, kind): &(Arc<str>, ArgumentKind)| match kind {
        ArgumentKind::Input => false,
        ArgumentKind::Weight => !f.is_private(),
        ArgumentKind::State { .. } => f.is_private(),
    };
    let updates = f.results.iter().any(|(_, kind)| *kind != ResultKind::Output);
    if f.arguments.iter().any(foreign) || (f.is_private() && updates) {
        return Err(violated("function.C5", format!("'{}' does not keep to it", f.name)));
    }
    let ty = |v: &ValueId| f.graph.get_value(*v).map(|v| &v.ty).ok_or_else(|| no_value(*v));
    for ((name, kind), v) in f.arguments.iter().zip(arguments) {
        let ArgumentKind::State { initial: Some(initial) } = kind else { continue };
        let agrees = match module.weights.get(initial) {
            Some(w) => types_agree(&w.ty, ty(v)?),
            None => false,
        };
        if !agrees {
            return Err(violated("function.C4", format!("'{initial}' is not")))
                .at(|| format!("argument '{name}'"));
        }
    }
    let mut updated = BTreeSet::new();
    for ((name, kind), v) in f.results.iter().zip(results) {
        let ResultKind::Update(argument) = kind else { continue };
        let i = *argument as usize;
        // An input may be updated too: a cache that the caller owns and hands in.
        let fits = match arguments.get(i) {
            Some(old) => updated.insert(i) && may_follow(ty(old)?, ty(v)?),
            None => false,
        };
        if !fits {
            return Err(violated("function.C3", format!("argument {i}, {}", ty(v)?)))
                .at(|| format!("result '{name}'"));
        }
    }
    Ok(())
}

/// Can a state of type `old` be of type `new` on the next call? Symbolic sizes may change from call to call.
fn may_follow(old: &TensorType, new: &TensorType) -> bool {
    old.dtype == new.dtype
        && old.rank() == new.rank()
        && old.shape.iter().zip(&new.shape).all(|(a, b)| match (a.as_const(), b.as_const()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        })
}

fn no_value(v: ValueId) -> Box<Diagnostic> {
    violated("graph.C1", format!("%{}", v.0))
}

/// What is known while a graph is walked in order of execution.
struct Walk<'a> {
    module: Option<&'a Module>,
    graph: &'a Graph,
    depth: usize,
    defined: Vec<bool>,
    /// Values that are known ahead of time, see [`walk::ahead_of_time`].
    ahead: Vec<bool>,
}

/// `weights` are the arguments that are known ahead of time.
fn check_graph(module: Option<&Module>, graph: &Graph, depth: usize, weights: Vec<ValueId>) -> Result<()> {
    if depth > MAX_REGION_DEPTH {
        return Err(violated("graph.C5", format!("depth {depth}")));
    }
    let unknown = vec![false; graph.values.len()];
    let mut walk = Walk { module, graph, depth, defined: unknown.clone(), ahead: unknown };
    for v in weights {
        *walk.ahead.get_mut(v.0 as usize).ok_or_else(|| no_value(v))? = true;
    }
    for (v, i) in graph.arguments.iter().zip(0..) {
        walk.define(*v, Definition::Argument(i)).at(|| format!("argument {i}"))?;
    }
    let mut seen = vec![false; graph.ops.len()];
    for (number, id) in graph.order.iter().enumerate() {
        let op = match (graph.get_op(*id), seen.get_mut(id.0 as usize)) {
            (Some(op), Some(seen)) if !*seen => {
                *seen = true;
                op
            }
            _ => return Err(violated("graph.C1", format!("operation {} in the order", id.0))),
        };
        walk.op(*id, op).at(|| op_place(number, op))?;
    }
    if graph.ops.iter().zip(&seen).any(|(op, seen)| op.is_some() && !seen) {
        return Err(violated("graph.C1", "an operation is not in the order of execution"));
    }
    graph.results.iter().try_for_each(|v| walk.check_use(*v)).at(|| "results")
}

/// Where an operation stands, for messages: number, name and the model's own place.
pub fn op_place(number: usize, op: &Op) -> String {
    let mut place = format!("op {number} 'djinn.{}'", op.kind.name());
    let Location { scope, source } = &op.location;
    if let Some(scope) = scope {
        place.push_str(&format!(" in {scope}"));
    }
    if let Some((file, line)) = source {
        place.push_str(&format!(" at {file}:{line}"));
    }
    place
}

impl Walk<'_> {
    fn define(&mut self, v: ValueId, def: Definition) -> Result<()> {
        let value = self.graph.get_value(v).ok_or_else(|| no_value(v))?;
        let slot = self.defined.get_mut(v.0 as usize).ok_or_else(|| no_value(v))?;
        if *slot || value.def != def {
            return Err(violated("graph.C2", format!("%{}", v.0)));
        }
        *slot = true;
        check_type(&value.ty)
    }

    fn check_use(&self, v: ValueId) -> Result<()> {
        match self.defined.get(v.0 as usize) {
            None => Err(no_value(v)),
            Some(false) => Err(violated("graph.C3", format!("%{}", v.0))),
            Some(true) => Ok(()),
        }
    }

    fn op(&mut self, id: OpId, op: &Op) -> Result<()> {
        op.operands.iter().try_for_each(|v| self.check_use(*v))?;
        for (i, region) in op.regions.iter().enumerate() {
            check_graph(self.module, region, self.depth + 1, Vec::new()).at(|| format!("region {i}"))?;
        }
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| self.graph.ty(*v)).collect();
        let inferred = infer(op.kind, &operands, &op.attrs, &op.regions)?;
        for (v, i) in op.results.iter().zip(0..) {
            self.define(*v, Definition::Result(id, i))?;
        }
        let declared: Vec<&TensorType> = op.results.iter().map(|v| self.graph.ty(*v)).collect();
        if !inferred.iter().eq(declared.iter().copied()) {
            let list =
                |types: &[&TensorType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let what = format!(
                "declares ({}), is ({})",
                list(&declared),
                list(&inferred.iter().collect::<Vec<_>>())
            );
            return Err(violated("graph.C4", what));
        }
        if walk::op_is_ahead_of_time(op, &self.ahead) {
            op.results.iter().for_each(|v| self.ahead[v.0 as usize] = true);
        }
        match self.module {
            Some(module) if op.kind == OpKind::Weight => check_weight_op(module, op),
            Some(module) if op.kind == OpKind::Call => self.call(module, op),
            _ => Ok(()),
        }
    }

    fn call(&self, module: &Module, op: &Op) -> Result<()> {
        let name = op.attrs.str("callee");
        let Some(f) = module.function(name).filter(|f| f.is_private()) else {
            return Err(violated("module.C3", format!("there is no private function '{name}'")));
        };
        let differ = |own: &[ValueId], other: &[ValueId]| {
            let of_callee = other.iter().map(|v| f.graph.get_value(*v).map(|v| &v.ty));
            !own.iter().map(|v| Some(self.graph.ty(*v))).eq(of_callee)
        };
        if differ(&op.operands, &f.graph.arguments) || differ(&op.results, &f.graph.results) {
            return Err(violated("module.C3", format!("'{name}' is of other types")));
        }
        for ((argument, kind), v) in f.arguments.iter().zip(&op.operands) {
            if *kind == ArgumentKind::Weight && !self.ahead[v.0 as usize] {
                return Err(violated("module.C5", format!("argument '{argument}' of '{name}' is not")));
            }
        }
        Ok(())
    }
}

/// The module's symbols have one value each in a run, so a function that is called more than once must not give any.
fn check_fresh_symbols(f: &Function) -> Result<()> {
    if !f.is_private() {
        return Ok(());
    }
    let symbols_of = |values: &[ValueId]| {
        let mut all = BTreeSet::new();
        for d in values.iter().filter_map(|v| f.graph.get_value(*v)).flat_map(|v| &v.ty.shape) {
            d.visit_symbols(&mut |s| {
                all.insert(s.clone());
            });
        }
        all
    };
    let known = symbols_of(&f.graph.arguments);
    for (_, op) in f.graph.ops().filter(|(_, op)| op.kind.def().has(traits::DATA_DEPENDENT)) {
        if let Some(s) = symbols_of(&op.results).difference(&known).next() {
            return Err(violated("function.C6", format!("'{}' is not", s.name())));
        }
    }
    Ok(())
}

/// Visits the call graph depth first; a function that is met again while it is open calls itself.
fn check_recursion(module: &Module) -> Result<()> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for f in &module.functions {
        let mut open: Vec<(&str, Vec<&str>)> = vec![(&f.name, walk::callees(&f.graph))];
        while let Some((name, callees)) = open.last_mut() {
            let Some(next) = callees.pop() else {
                done.insert(*name);
                open.pop();
                continue;
            };
            if open.iter().any(|(name, _)| *name == next) {
                return Err(violated("module.C4", format!("'{next}' calls itself")));
            }
            if let Some(callee) = module.function(next).filter(|_| !done.contains(next)) {
                open.push((&callee.name, walk::callees(&callee.graph)));
            }
        }
    }
    Ok(())
}

fn check_type(ty: &TensorType) -> Result<()> {
    if ty.shape.iter().any(Dim::is_overflow) || ty.numel().is_overflow() {
        return Err(violated("type.C2", ty.to_string()));
    }
    match ty.shape.iter().find(|d| d.as_const().is_some_and(|c| c < 0)) {
        Some(d) => Err(violated("type.C1", d.to_string())),
        None => Ok(()),
    }
}

fn check_weight_op(module: &Module, op: &Op) -> Result<()> {
    let name = op.attrs.str("name");
    let Some(weight) = module.weights.get(name) else {
        return Err(violated("module.C1", format!("there is no weight '{name}'")));
    };
    let hash = module.weight_hash(name).map(|hash| hash.to_string()).unwrap_or_default();
    if op.attrs.types("types") != std::slice::from_ref(&weight.ty) || op.attrs.str("hash") != hash {
        return Err(violated("module.C1", format!("'{name}' is {} with hash '{hash}'", weight.ty)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "constraint_tests.rs"]
mod constraint_tests;
