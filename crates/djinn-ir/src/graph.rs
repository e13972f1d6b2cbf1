//! Modules, functions and graphs: SSA over tensors.
//!
//! A [`Graph`] is one straight-line body (of a function, or a region of an operation). Every value is defined once,
//! before its uses. Regions see nothing but their own arguments. Graphs are built with [`Graph::push`] and changed
//! through [`crate::Patch`] only.

use crate::attr::{Attr, Attrs};
use crate::data::{ContentHash, TensorData};
use crate::dim::SymbolTable;
use crate::ops::OpKind;
use crate::types::TensorType;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A value of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// An operation of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u32);

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definition {
    /// Argument number of the graph.
    Argument(u32),
    /// Result number of an operation.
    Result(OpId, u32),
}

/// Where in the model's own code an operation comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Location {
    /// Module path, such as `model.layers.0.self_attn`.
    pub scope: Option<Arc<str>>,
    /// Source file and line.
    pub source: Option<(Arc<str>, u32)>,
}

/// A value: its type and where it comes from.
#[derive(Debug, Clone)]
pub struct Value {
    /// The type.
    pub ty: TensorType,
    /// The definition.
    pub def: Definition,
}

/// An operation.
#[derive(Debug, Clone)]
pub struct Op {
    /// Which row of the op table.
    pub kind: OpKind,
    /// Operands, in the order of the op table.
    pub operands: Vec<ValueId>,
    /// Exactly the attributes of the op table.
    pub attrs: Attrs,
    /// Semantic annotations (phase, residency, modality, …): discardable, sorted by name.
    pub annotations: BTreeMap<Arc<str>, Attr>,
    /// Results.
    pub results: Vec<ValueId>,
    /// Regions.
    pub regions: Vec<Graph>,
    /// Where it comes from.
    pub location: Location,
}

impl Op {
    /// An annotation that is an integer.
    pub fn annotated_int(&self, name: &str) -> Option<i64> {
        match self.annotations.get(name) {
            Some(Attr::Int(number)) => Some(*number),
            _ => None,
        }
    }

    /// An annotation that is text.
    pub fn annotated_str(&self, name: &str) -> Option<&str> {
        match self.annotations.get(name) {
            Some(Attr::Str(text)) => Some(text),
            _ => None,
        }
    }
}

/// Arguments and results of a function, by number, that are KV caches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caches {
    /// Numbers of arguments.
    pub arguments: BTreeSet<usize>,
    /// Numbers of results.
    pub results: BTreeSet<usize>,
}

/// A straight-line SSA body.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) ops: Vec<Option<Op>>,
    pub(crate) order: Vec<OpId>,
    /// Arguments.
    pub arguments: Vec<ValueId>,
    /// Values that the graph gives back.
    pub results: Vec<ValueId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// Adds an argument of this type.
    pub fn add_argument(&mut self, ty: TensorType) -> ValueId {
        let v = self.new_value(ty, Definition::Argument(self.arguments.len() as u32));
        self.arguments.push(v);
        v
    }

    fn new_value(&mut self, ty: TensorType, def: Definition) -> ValueId {
        self.values.push(Value { ty, def });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Appends an operation whose result types the caller has inferred (see [`crate::infer`]); gives its id.
    ///
    /// The verifier checks the result later; frontends use [`Graph::build`], which infers the types itself.
    pub fn push(
        &mut self,
        kind: OpKind,
        operands: Vec<ValueId>,
        attrs: Attrs,
        regions: Vec<Graph>,
        types: Vec<TensorType>,
        location: Location,
    ) -> OpId {
        let id = OpId(self.ops.len() as u32);
        let results = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| self.new_value(ty, Definition::Result(id, i as u32)))
            .collect();
        self.ops.push(Some(Op {
            kind,
            operands,
            attrs,
            annotations: BTreeMap::new(),
            results,
            regions,
            location,
        }));
        self.order.push(id);
        id
    }

    /// Infers the result types, checks the constraints of the op table, and appends the operation.
    pub fn build(
        &mut self,
        kind: OpKind,
        operands: &[ValueId],
        attrs: Attrs,
        regions: Vec<Graph>,
        location: Location,
    ) -> djinn_diag::Result<OpId> {
        let types: Vec<&TensorType> = operands
            .iter()
            .map(|v| {
                self.get_value(*v).map(|v| &v.ty).ok_or_else(|| {
                    djinn_diag::internal("graph.C1", format!("%{} is no value of this graph", v.0))
                })
            })
            .collect::<djinn_diag::Result<_>>()?;
        let results = crate::infer::infer(kind, &types, &attrs, &regions)?;
        Ok(self.push(kind, operands.to_vec(), attrs, regions, results, location))
    }

    /// Like [`Graph::build`] for operations with one result, without regions: gives the result.
    pub fn build1(
        &mut self,
        kind: OpKind,
        operands: &[ValueId],
        attrs: Attrs,
    ) -> djinn_diag::Result<ValueId> {
        let op = self.build(kind, operands, attrs, Vec::new(), Location::default())?;
        self.op(op).results.first().copied().ok_or_else(|| {
            djinn_diag::internal("graph.results", format!("'{}' has no results here", kind.name()))
        })
    }

    /// A value of this graph.
    pub fn value(&self, v: ValueId) -> &Value {
        &self.values[v.0 as usize]
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.value(v).ty
    }

    /// An operation of this graph.
    ///
    /// # Panics
    /// If the operation was removed: ids of removed operations must not be kept.
    pub fn op(&self, id: OpId) -> &Op {
        self.ops[id.0 as usize].as_ref().expect("operation was removed")
    }

    /// An operation of this graph; `None` if it was removed or never existed.
    pub fn get_op(&self, id: OpId) -> Option<&Op> {
        self.ops.get(id.0 as usize)?.as_ref()
    }

    /// A value of this graph; `None` if it does not exist.
    pub fn get_value(&self, v: ValueId) -> Option<&Value> {
        self.values.get(v.0 as usize)
    }

    /// Sets an annotation of an operation (never its meaning); does nothing if the operation does not exist.
    pub fn annotate(&mut self, id: OpId, name: &str, value: impl Into<Attr>) {
        if let Some(op) = self.ops.get_mut(id.0 as usize).and_then(Option::as_mut) {
            op.annotations.insert(Arc::from(name), value.into());
        }
    }

    /// The operation that defines `v` and the result's number; `None` for arguments.
    pub fn definition(&self, v: ValueId) -> Option<(OpId, usize)> {
        match self.value(v).def {
            Definition::Argument(_) => None,
            Definition::Result(op, i) => Some((op, i as usize)),
        }
    }

    /// Operations in order of execution.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = (OpId, &Op)> {
        self.order.iter().filter_map(|id| Some((*id, self.get_op(*id)?)))
    }

    /// Number of operations, regions not counted.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Has it no operations?
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Number of values ever made in this graph: an upper bound of `ValueId.0 + 1`.
    pub fn value_capacity(&self) -> usize {
        self.values.len()
    }

    /// How often each value is used, by operands and graph results; indexed by value number.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.values.len()];
        let operands = self.ops().flat_map(|(_, op)| op.operands.iter());
        for v in operands.chain(&self.results) {
            if let Some(count) = counts.get_mut(v.0 as usize) {
                *count += 1;
            }
        }
        counts
    }
}

/// Who may run a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Visibility {
    /// Whoever runs the program.
    #[default]
    Entry,
    /// Only `call` operations of the same module.
    Private,
}

/// What an argument of a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentKind {
    /// Given by the caller on every call.
    Input,
    /// Of a private function: every call binds it to a value that is known ahead of time
    /// ([`crate::walk::ahead_of_time`]).
    Weight,
    /// State that lives from call to call (KV cache, buffer); starts as this weight, or as what the caller gives.
    State {
        /// Name of the weight that holds the first value.
        initial: Option<Arc<str>>,
    },
}

/// What a result of a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultKind {
    /// Handed to the caller.
    Output,
    /// The new value of this argument (by number): a functional update of a state, or of an input that the model
    /// writes in place.
    Update(u32),
}

/// A function of a program.
#[derive(Debug, Clone)]
pub struct Function {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// Who may run it.
    pub visibility: Visibility,
    /// The body.
    pub graph: Graph,
    /// Name and kind of every argument.
    pub arguments: Vec<(Arc<str>, ArgumentKind)>,
    /// Name and kind of every result.
    pub results: Vec<(Arc<str>, ResultKind)>,
}

/// A weight: its type, content hash and bytes; files without values give the type only.
#[derive(Debug, Clone)]
pub struct Weight {
    /// The type, with constant sizes.
    pub ty: TensorType,
    /// The content, if the file had it.
    pub data: Option<(ContentHash, TensorData)>,
}

impl Weight {
    /// A weight with content.
    pub fn with_data(data: TensorData) -> Self {
        Weight { ty: data.ty(), data: Some((data.content_hash(), data)) }
    }
}

impl Function {
    /// May it be called by `call` operations only?
    pub fn is_private(&self) -> bool {
        self.visibility == Visibility::Private
    }
}

/// A whole program: entry functions that share weights, state and symbols, and the private functions they call.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// Entry and private functions.
    pub functions: Vec<Function>,
    /// Weights by name. Tied weights share a content hash and the bytes.
    pub weights: BTreeMap<Arc<str>, Weight>,
    /// What is known of the symbols.
    pub symbols: SymbolTable,
    /// Free-form facts about the model (producer, framework version, …), sorted by key.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
    /// Content hashes of weights whose bytes are elsewhere (modules read from text), by name of the weight.
    pub absent: BTreeMap<Arc<str>, ContentHash>,
}

impl Module {
    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| &*f.name == name)
    }

    /// Entry functions, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|f| !f.is_private())
    }

    /// The content hash of a weight, if it is known.
    pub fn weight_hash(&self, name: &str) -> Option<ContentHash> {
        let held = self.weights.get(name)?.data.as_ref().map(|(hash, _)| *hash);
        held.or_else(|| self.absent.get(name).copied())
    }

    /// The arguments and results of a function that phase detection found to be KV caches.
    pub fn caches(&self, function: &Function) -> Caches {
        let numbers = |what: &str| {
            let text = self.metadata.get(format!("cache.{}.{what}", function.name).as_str());
            text.map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect()).unwrap_or_default()
        };
        Caches { arguments: numbers("arguments"), results: numbers("results") }
    }

    /// Number of operations in all functions, regions included.
    pub fn op_count(&self) -> usize {
        fn count(g: &Graph) -> usize {
            g.ops().map(|(_, op)| 1 + op.regions.iter().map(count).sum::<usize>()).sum()
        }
        self.functions.iter().map(|f| count(&f.graph)).sum()
    }

    /// The value of a `weight` or `constant` operation, if it is known.
    pub fn constant_value<'a>(&'a self, op: &'a Op) -> Option<&'a TensorData> {
        match op.kind {
            OpKind::Constant => op.attrs.tensor("value"),
            OpKind::Weight => self.weights.get(op.attrs.str("name"))?.data.as_ref().map(|(_, d)| d),
            _ => None,
        }
    }
}

/// Attributes of a `weight` operation for this weight.
pub fn weight_attrs(name: &str, weight: &Weight) -> Attrs {
    let hash = weight.data.as_ref().map(|(h, _)| h.to_string()).unwrap_or_default();
    Attrs::new().with("name", name).with("hash", hash).with("types", vec![weight.ty.clone()])
}
