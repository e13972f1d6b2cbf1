//! Values of symbols: bound from shapes, held against promises and ranges.

use djinn_diag::{Diagnostic, Result, input};
use djinn_interp::Env;
use djinn_ir::{Attr, Graph, Op, Symbol, SymbolTable, TensorType, ValueId};
use djinn_plan::SymbolRange;
use std::collections::BTreeSet;

/// A value's name for messages, its declared type, and its shape.
pub(crate) struct Shaped<'a> {
    pub(crate) what: String,
    pub(crate) ty: &'a TensorType,
    pub(crate) shape: Vec<usize>,
}

/// The values that shapes give to symbols; a shape that contradicts its type or another shape is refused.
pub(crate) fn bind(env: &mut Env, values: &[Shaped]) -> Result<()> {
    loop {
        let before = env.iter().count();
        for v in values {
            env.bind_shape(&v.what, v.ty, &v.shape)?;
        }
        if env.iter().count() == before {
            return Ok(());
        }
    }
}

/// Checks the values against what the program promises of its symbols.
pub(crate) fn check_promises(symbols: &SymbolTable, env: &Env) -> Result<()> {
    for (symbol, value) in env.iter() {
        let info = symbols.info(symbol);
        let divides = info.divisor <= 1 || value % info.divisor == 0;
        if value < info.min || info.max.is_some_and(|max| value > max) || !divides {
            return Err(input(
                "runtime.sizes",
                format!("size '{}' is {value}, which the program does not admit", symbol.name()),
            ));
        }
    }
    Ok(())
}

/// The first range that the value of its symbol leaves; symbols without a value leave none.
pub(crate) fn left_range<'a>(ranges: &'a [SymbolRange], env: &Env) -> Option<&'a SymbolRange> {
    ranges.iter().find(|r| env.get(&Symbol::new(&r.name)).is_some_and(|v| v < r.min || v > r.max))
}

/// The ranges as text.
pub(crate) fn show_ranges(ranges: &[SymbolRange]) -> String {
    let shown: Vec<String> = ranges.iter().map(|r| format!("{} in {}..={}", r.name, r.min, r.max)).collect();
    if shown.is_empty() { "fixed sizes".to_owned() } else { shown.join(", ") }
}

/// Adds what a kernel has found out about symbols to what is known.
pub(crate) fn merge(known: &mut Env, found: &Env, ranges: &[SymbolRange]) -> Result<()> {
    for (symbol, value) in found.iter() {
        match known.get(symbol) {
            None => known.set(symbol.clone(), value),
            Some(old) if old == value => {}
            Some(old) => return Err(contradiction(symbol, old, value)),
        }
    }
    check_ranges(ranges, known)
}

/// Sizes that a run has found out must be such that the entry is for them.
pub(crate) fn check_ranges(ranges: &[SymbolRange], env: &Env) -> Result<()> {
    match left_range(ranges, env) {
        None => Ok(()),
        Some(range) => Err(input(
            "runtime.sizes",
            format!("a size computed in the run leaves {}", show_ranges(std::slice::from_ref(range))),
        )),
    }
}

fn contradiction(symbol: &Symbol, old: i64, new: i64) -> Box<Diagnostic> {
    input("runtime.sizes", format!("size '{}' is {old} and {new} in one run", symbol.name()))
}

/// Symbols of the types of values.
pub(crate) fn symbols_of<'a>(
    graph: &Graph,
    values: impl IntoIterator<Item = &'a ValueId>,
) -> BTreeSet<Symbol> {
    let mut found = BTreeSet::new();
    for v in values {
        for dim in graph.get_value(*v).iter().flat_map(|v| &v.ty.shape) {
            dim.visit_symbols(&mut |s| {
                found.insert(s.clone());
            });
        }
    }
    found
}

/// Symbols that must have values for an operation to be evaluated: those of operand types and attributes.
pub(crate) fn symbols_needed(graph: &Graph, op: &Op) -> BTreeSet<Symbol> {
    let mut found = symbols_of(graph, &op.operands);
    for (name, attr) in op.attrs.iter() {
        let dims = match attr {
            Attr::Dim(dim) => std::slice::from_ref(dim),
            Attr::Dims(dims) if name != "result_shape" => dims,
            _ => &[],
        };
        for dim in dims {
            dim.visit_symbols(&mut |s| {
                found.insert(s.clone());
            });
        }
    }
    found
}
