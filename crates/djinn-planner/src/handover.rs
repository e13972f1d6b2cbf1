//! Is what one run leaves on a device what the next one takes it for?
//!
//! A run may take the value of an input that stays on its device from a run before, of whichever entry. All ports that
//! stand in one buffer must therefore be one and the same cache. Shares no code with what decides that
//! ([`crate::caches`]) but the words for the weights behind results, which were noted before any pass ran.

use crate::caches;
use djinn_diag::{Context, Result, internal};
use djinn_ir::{Dim, Function, Module, OpKind, TensorType, ValueId};
use djinn_plan::{BufferId, Plan, ValueRef};
use std::collections::{BTreeMap, BTreeSet};

/// The values of one function that stand in a buffer.
#[derive(Default)]
struct Uses {
    inputs: BTreeSet<ValueId>,
    outputs: BTreeSet<ValueId>,
}

type Value<'a> = &'a dyn Fn(&Function, ValueRef) -> Option<ValueId>;

/// Checks every buffer that holds what stays from run to run.
pub(crate) fn check(plan: &Plan, module: &Module, value: Value<'_>) -> Result<()> {
    let (buffers, outputs) = uses(plan, module, value)?;
    for (buffer, functions) in &buffers {
        let name = plan.buffers.get(buffer.index()).map_or("", |b| &b.name);
        of_buffer(module, functions, &outputs).at(|| format!("buffer {} '{name}'", buffer.0))?;
    }
    let states = plan
        .entries
        .iter()
        .flat_map(|e| e.states.iter().map(|s| s.view.buffer).chain(e.updates.iter().map(|u| u.view.buffer)));
    match states.into_iter().find(|b| buffers.contains_key(b)) {
        Some(buffer) => Err(wrong(format!("an input or output stands in the state of buffer {}", buffer.0))),
        None => Ok(()),
    }
}

fn wrong(what: impl Into<String>) -> Box<djinn_diag::Diagnostic> {
    internal("plan.conform", what)
}

type ByFunction<'a, T> = BTreeMap<&'a str, T>;

/// The uses of every buffer that an input or output stays in, and the outputs of every function that stay anywhere.
#[allow(clippy::type_complexity, reason = "used in one place")]
fn uses<'a>(
    plan: &'a Plan,
    module: &Module,
    value: Value<'_>,
) -> Result<(BTreeMap<BufferId, ByFunction<'a, Uses>>, ByFunction<'a, BTreeSet<ValueId>>)> {
    let mut buffers: BTreeMap<BufferId, ByFunction<'a, Uses>> = BTreeMap::new();
    let mut all: ByFunction<'a, BTreeSet<ValueId>> = BTreeMap::new();
    for entry in &plan.entries {
        let Some(function) = module.function(&entry.function) else { continue };
        for (ports, is_input) in [(&entry.inputs, true), (&entry.outputs, false)] {
            for port in ports.iter().filter(|p| p.resident) {
                let (Some(view), Some(v)) = (port.view, value(function, port.value)) else {
                    return Err(wrong(format!("'{}' stays nowhere", port.name)));
                };
                if view.offset != 0 {
                    return Err(wrong(format!("'{}' begins inside of a buffer", port.name)));
                }
                let uses = buffers.entry(view.buffer).or_default().entry(&entry.function).or_default();
                if is_input {
                    uses.inputs.insert(v);
                } else {
                    uses.outputs.insert(v);
                    all.entry(&entry.function).or_default().insert(v);
                }
            }
        }
    }
    Ok((buffers, all))
}

fn of_buffer(
    module: &Module,
    functions: &ByFunction<'_, Uses>,
    outputs: &ByFunction<'_, BTreeSet<ValueId>>,
) -> Result<()> {
    let mut first: Option<Identity<'_>> = None;
    for (name, uses) in functions {
        let Some(function) = module.function(name) else { continue };
        let (inputs, results): (Vec<_>, Vec<_>) =
            (uses.inputs.iter().collect(), uses.outputs.iter().collect());
        let grows = match (inputs.as_slice(), results.as_slice()) {
            ([_], []) | ([], [_]) => None,
            ([old], [new]) => Some(renewed_along(function, **old, **new)?),
            _ => return Err(wrong(format!("several values of '{name}' stay in one buffer"))),
        };
        if functions.len() == 1 {
            continue;
        }
        let Some(result) = results.first() else {
            return Err(wrong(format!("'{name}' takes from another function what it does not renew")));
        };
        let own = identity(module, function, **result, &outputs[*name], grows.flatten())?;
        match &first {
            None => first = Some(own),
            Some(other) if own.is(other) => {}
            Some(_) => return Err(wrong(format!("two different caches share it, one of them of '{name}'"))),
        }
    }
    Ok(())
}

/// The axis along which the new value is longer than the old one; none if it is as long.
fn renewed_along(function: &Function, old: ValueId, new: ValueId) -> Result<Option<usize>> {
    let op = function.graph.definition(new).map(|(id, _)| function.graph.op(id));
    match op.filter(|op| op.operands.first() == Some(&old)) {
        Some(op) if op.kind == OpKind::Concat => Ok(usize::try_from(op.attrs.int("axis")).ok()),
        Some(op) if matches!(op.kind, OpKind::IndexCopy | OpKind::ScatterNd | OpKind::ScatterElements) => {
            Ok(None)
        }
        _ => Err(wrong(format!("%{} stands where %{} was and is not its new content", new.0, old.0))),
    }
}

/// What makes two caches of two functions the same one.
struct Identity<'a> {
    ty: &'a TensorType,
    grows: Option<usize>,
    /// By level: the word for the weights behind it, its place among the outputs with this word, and how many there are.
    sources: [Option<(&'a str, usize, usize)>; caches::LEVELS.len()],
}

impl Identity<'_> {
    fn is(&self, other: &Identity<'_>) -> bool {
        let (a, b) = (self.ty, other.ty);
        let known = |d: &Dim| d.as_const();
        let sizes = a.shape.iter().zip(&b.shape).enumerate().all(|(axis, (a, b))| {
            let grows = self.grows == Some(axis) || other.grows == Some(axis);
            grows || known(a).zip(known(b)).is_none_or(|(a, b)| a == b)
        });
        let alike = self.sources.iter().zip(&other.sources).any(|(a, b)| a.is_some() && a == b);
        alike && a.dtype == b.dtype && a.rank() == b.rank() && sizes
    }
}

fn identity<'a>(
    module: &'a Module,
    function: &'a Function,
    v: ValueId,
    outputs: &BTreeSet<ValueId>,
    grows: Option<usize>,
) -> Result<Identity<'a>> {
    let results = &function.graph.results;
    let number = |v: ValueId| results.iter().position(|r| *r == v);
    let mut kept: Vec<usize> = outputs.iter().filter_map(|o| number(*o)).collect();
    kept.sort_unstable();
    let sources = caches::LEVELS.map(|level| {
        let words = module.metadata.get(format!("cache.{}.{level}", function.name).as_str())?;
        let words: Vec<&str> = words.split_whitespace().collect();
        let own = number(v)?;
        let word = words.get(own).copied().filter(|w| *w != "-")?;
        let same: Vec<usize> = kept.iter().copied().filter(|r| words.get(*r) == Some(&word)).collect();
        Some((word, same.iter().position(|r| *r == own)?, same.len()))
    });
    if sources.iter().all(Option::is_none) {
        return Err(wrong(format!("nothing says that %{} of '{}' is the same cache", v.0, function.name)));
    }
    Ok(Identity { ty: function.graph.ty(v), grows, sources })
}
