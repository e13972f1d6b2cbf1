//! The e-graph language: one e-node per operation of the op table, with types and constants as analyses.

use djinn_ir::symbolic::{self, SymbolicValue};
use djinn_ir::{Attr, Attrs, DType, Location, Op, OpKind, TensorData, TensorType, infer};
use egg::{Analysis, DidMerge, EGraph, Id, Language};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The head of an e-node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Head {
    /// A value that comes from outside: argument number of the graph.
    Argument(u32),
    /// An operation with one result and no regions.
    Op(OpKind, Arc<Attrs>),
    /// An operation that rewriting does not look into (several results, regions, opaque): index into the barriers.
    Barrier(u32),
    /// Result number of a barrier, its only child.
    Projection(u32),
}

/// An e-node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// What it computes.
    pub head: Head,
    /// Operand e-classes.
    pub children: Vec<Id>,
}

impl Node {
    /// An operation node.
    pub fn op(kind: OpKind, attrs: Attrs, children: Vec<Id>) -> Self {
        Node { head: Head::Op(kind, Arc::new(attrs)), children }
    }

    /// The operation, unless it is an argument, barrier or projection.
    pub fn kind(&self) -> Option<OpKind> {
        match &self.head {
            Head::Op(kind, _) => Some(*kind),
            Head::Argument(_) | Head::Barrier(_) | Head::Projection(_) => None,
        }
    }

    /// The attributes of an operation node.
    pub fn attrs(&self) -> Option<&Arc<Attrs>> {
        match &self.head {
            Head::Op(_, attrs) => Some(attrs),
            Head::Argument(_) | Head::Barrier(_) | Head::Projection(_) => None,
        }
    }
}

impl Language for Node {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head.clone()
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

/// Evaluates an operation on constants: `None` if it cannot.
pub type ConstantEvaluator =
    dyn Fn(OpKind, &Attrs, &[TensorData], &TensorType) -> Option<TensorData> + Send + Sync;

/// Constants that the e-graph computes while it grows have at most this many elements; larger weight-only
/// expressions are computed once, after extraction.
pub const MAX_FOLDED_ELEMENTS: usize = 4096;

/// Computed constants of at most this many elements become literals of the e-graph, which extraction may choose.
pub const MAX_LITERAL_ELEMENTS: usize = 64;

/// What is known of an e-class.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The type; for a barrier, the types of all its results.
    pub types: Arc<[TensorType]>,
    /// Does the value depend on nothing but weights, literals and symbolic sizes?
    pub weight_only: bool,
    /// The value, if it is a small constant (or a literal of any size).
    pub constant: Option<TensorData>,
    /// The elements as symbolic sizes, if it is a small known integer tensor.
    pub symbolic: Option<SymbolicValue>,
    /// Where the operation comes from; operations made by a rule inherit it from the match.
    pub origin: Option<Arc<Origin>>,
}

/// Where an operation comes from, and its annotations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The place in the model's own code.
    pub location: Location,
    /// Semantic annotations.
    pub annotations: BTreeMap<Arc<str>, Attr>,
}

impl Origin {
    /// That of an operation.
    pub fn of(op: &Op) -> Origin {
        Origin { location: op.location.clone(), annotations: op.annotations.clone() }
    }

    /// That of an operation which helps to compute the value: what is said of the value itself is left out.
    #[must_use]
    pub fn of_helper(&self) -> Origin {
        let mut origin = self.clone();
        origin.annotations.remove("residency");
        origin
    }
}

impl Facts {
    /// The type of a value.
    pub fn ty(&self) -> &TensorType {
        &self.types[0]
    }

    /// The one value of all elements of a constant.
    pub fn splat(&self) -> Option<f64> {
        self.constant.as_ref().and_then(TensorData::splat_value)
    }
}

/// The analysis: computes [`Facts`] bottom-up.
pub struct Facting {
    /// Types of the arguments of the graph.
    pub argument_types: Vec<TensorType>,
    /// Result types of every barrier.
    pub barrier_types: Vec<Arc<[TensorType]>>,
    /// Evaluates small constant operations; absent in checks that must not fold.
    pub evaluator: Option<Arc<ConstantEvaluator>>,
    /// Contents of weights by name, for those small enough to be looked into.
    pub weight_values: BTreeMap<Arc<str>, TensorData>,
    /// Arguments that are always weights, by number.
    pub weight_arguments: BTreeSet<u32>,
}

/// The e-graph.
pub type Graph = EGraph<Node, Facting>;

impl Analysis<Node> for Facting {
    type Data = Facts;

    fn make(egraph: &mut Graph, node: &Node, _id: Id) -> Facts {
        let facts = |types: Arc<[TensorType]>, weight_only: bool| Facts {
            types,
            weight_only,
            constant: None,
            symbolic: None,
            origin: None,
        };
        match &node.head {
            Head::Argument(i) => {
                let ty = egraph.analysis.argument_types.get(*i as usize).cloned();
                let ty = ty.unwrap_or_else(unknown);
                let weight = egraph.analysis.weight_arguments.contains(i) && ty.const_shape().is_some();
                facts(Arc::from([ty]), weight)
            }
            Head::Barrier(i) => {
                let types = egraph.analysis.barrier_types.get(*i as usize).cloned();
                facts(types.unwrap_or_else(|| Arc::from([])), false)
            }
            Head::Projection(i) => {
                let types = &egraph[node.children[0]].data.types;
                facts(Arc::from([types.get(*i as usize).cloned().unwrap_or_else(unknown)]), false)
            }
            Head::Op(kind, attrs) => make_op(egraph, *kind, attrs, &node.children),
        }
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        let mut changed = DidMerge(false, false);
        // Both types are equal up to sizes that could not be compared: the canonically smaller one is kept.
        if a.types != b.types {
            let take = b.types < a.types;
            changed = changed | DidMerge(take, !take);
            if take {
                a.types = b.types;
            }
        }
        if a.weight_only != b.weight_only {
            changed = changed | DidMerge(b.weight_only, a.weight_only);
            a.weight_only = true;
        }
        changed = changed | merge_option(&mut a.constant, b.constant);
        changed = changed | merge_option(&mut a.symbolic, b.symbolic);
        if a.origin.is_none() && b.origin.is_some() {
            a.origin = b.origin;
            changed = changed | DidMerge(true, false);
        }
        changed
    }

    fn modify(egraph: &mut Graph, id: Id) {
        let data = &egraph[id].data;
        let leaf = |n: &Node| matches!(n.kind(), Some(OpKind::Constant | OpKind::DimExpr));
        if egraph[id].nodes.iter().any(leaf) {
            return;
        }
        let literal = if let Some(value) = &data.constant {
            (value.numel() <= MAX_LITERAL_ELEMENTS)
                .then(|| Attrs::new().with("value", value.clone()))
                .map(|a| (OpKind::Constant, a))
        } else if let Some(value) =
            data.symbolic.as_ref().filter(|v| v.shape.len() <= 1 && data.ty().dtype == DType::I64)
        {
            let attrs =
                Attrs::new().with("exprs", value.elements.clone()).with("scalar", value.shape.is_empty());
            Some((OpKind::DimExpr, attrs))
        } else {
            None
        };
        if let Some((kind, attrs)) = literal {
            let node = egraph.add(Node::op(kind, attrs, Vec::new()));
            egraph.union(id, node);
        }
    }
}

fn merge_option<T>(a: &mut Option<T>, b: Option<T>) -> DidMerge {
    match (a.is_some(), b) {
        (false, Some(b)) => {
            *a = Some(b);
            DidMerge(true, false)
        }
        (true, None) => DidMerge(false, true),
        _ => DidMerge(false, false),
    }
}

/// Stands for a type that the caller failed to give; rules refuse to match it since no constraint fits it.
fn unknown() -> TensorType {
    TensorType::scalar(DType::Bool)
}

fn make_op(egraph: &Graph, kind: OpKind, attrs: &Attrs, children: &[Id]) -> Facts {
    let data: Vec<&Facts> = children.iter().map(|c| &egraph[*c].data).collect();
    let operand_types: Vec<&TensorType> = data.iter().map(|d| d.ty()).collect();
    let ty = infer::infer(kind, &operand_types, attrs, &[]).ok().and_then(|t| t.into_iter().next());
    let ty = ty.unwrap_or_else(unknown);
    let weight_only = match kind {
        OpKind::Weight | OpKind::Constant => true,
        OpKind::Iota => attrs.dims("shape").iter().all(|d| d.as_const().is_some()),
        OpKind::DimExpr => attrs.dims("exprs").iter().all(|d| d.as_const().is_some()),
        _ => !data.is_empty() && data.iter().all(|d| d.weight_only) && ty.const_shape().is_some(),
    };
    let constant = match kind {
        OpKind::Constant => attrs.tensor("value").cloned(),
        OpKind::Weight => egraph.analysis.weight_values.get(attrs.str("name")).cloned(),
        _ => fold_constant(egraph, kind, attrs, &data, &ty),
    };
    let symbolic = match &constant {
        Some(value) => SymbolicValue::from_data(value),
        None => {
            let operands: Vec<Option<&SymbolicValue>> = data.iter().map(|d| d.symbolic.as_ref()).collect();
            symbolic::fold(kind, attrs, &operands, &ty)
        }
    };
    Facts { types: Arc::from([ty]), weight_only, constant, symbolic, origin: None }
}

fn fold_constant(
    egraph: &Graph,
    kind: OpKind,
    attrs: &Attrs,
    data: &[&Facts],
    ty: &TensorType,
) -> Option<TensorData> {
    let evaluator = egraph.analysis.evaluator.as_ref()?;
    let small =
        |t: &TensorType| t.numel().as_const().is_some_and(|n| (0..=MAX_FOLDED_ELEMENTS as i64).contains(&n));
    if data.is_empty() && kind != OpKind::Iota || !small(ty) || !data.iter().all(|d| small(d.ty())) {
        return None;
    }
    let operands: Vec<TensorData> = data.iter().map(|d| d.constant.clone()).collect::<Option<_>>()?;
    evaluator(kind, attrs, &operands, ty)
}
