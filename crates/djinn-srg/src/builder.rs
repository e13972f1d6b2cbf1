//! Building an SRG in code.

use crate::{Semantics, Srg, SrgEdge, SrgFunction, SrgGraph, SrgNode};
use djinn_diag::{Result, input, internal};
use djinn_ir::symbolic::{self, SymbolicValue};
use djinn_ir::{
    ArgumentKind, Attrs, Dim, Graph, OpKind, ResultKind, Symbol, SymbolInfo, TensorData, TensorType, Weight,
    attrs, infer, weight_attrs,
};
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// A value of the graph (or region) under construction: one result of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SrgValue {
    /// The node.
    pub node: NodeIndex,
    /// Its result number.
    pub result: u32,
}

/// Where a node comes from; the builder stamps the current one on every node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The framework's operation, such as `aten.linear.default` or `MatMul`.
    pub framework_op: Arc<str>,
    /// The node's name in the model file.
    pub name: Arc<str>,
    /// Module path, such as `model.layers.0.self_attn`.
    pub scope: Option<Arc<str>>,
    /// Source file and line of the model's own code.
    pub source: Option<(Arc<str>, u32)>,
}

/// Makes one [`SrgFunction`] at a time, inferring types and following shape arithmetic as it goes.
///
/// ```
/// use djinn_ir::{attrs, Attrs, DType, Dim, OpKind, TensorType, Weight};
/// use djinn_srg::SrgBuilder;
///
/// // One attention block over x [batch, length, 64] with 4 heads.
/// let mut b = SrgBuilder::new("attention");
/// let (batch, length) = (Dim::symbol("batch"), Dim::symbol("length"));
/// let x = b.input("x", TensorType::new(DType::F32, [batch, length, Dim::from(64)]));
/// let project = |b: &mut SrgBuilder, name: &str| {
///     let w = b.weight(name, Weight { ty: TensorType::of(DType::F32, &[64, 64]), data: None })?;
///     b.op(OpKind::MatMul, &[x, w], Attrs::new())
/// };
/// let (q, k, v) = (project(&mut b, "wq")?, project(&mut b, "wk")?, project(&mut b, "wv")?);
/// let heads = attrs! { scale: 0.25, causal: true, causal_offset: Dim::ZERO, query_heads: 4i64, kv_heads: 4i64 };
/// let attended = b.op(OpKind::Sdpa, &[q, k, v], heads)?;
/// let wo = b.weight("wo", Weight { ty: TensorType::of(DType::F32, &[64, 64]), data: None })?;
/// let y = b.op(OpKind::MatMul, &[attended, wo], Attrs::new())?;
/// b.output("y", y);
/// let srg = b.finish()?;
/// assert_eq!(srg.functions[0].body.graph.node_count(), 10);
/// # Ok::<(), Box<djinn_diag::Diagnostic>>(())
/// ```
#[derive(Debug)]
pub struct SrgBuilder {
    srg: Srg,
    name: Arc<str>,
    arguments: Vec<(Arc<str>, ArgumentKind)>,
    results: Vec<(Arc<str>, ResultKind)>,
    /// Innermost region last.
    frames: Vec<Frame>,
    origin: Origin,
    semantics: Semantics,
    next_symbol: u32,
}

#[derive(Debug, Default)]
struct Frame {
    graph: SrgGraph,
    known: BTreeMap<SrgValue, SymbolicValue>,
}

impl SrgBuilder {
    /// Starts a program with a function of this name.
    pub fn new(function: &str) -> Self {
        SrgBuilder {
            srg: Srg::default(),
            name: Arc::from(function),
            arguments: Vec::new(),
            results: Vec::new(),
            frames: vec![Frame::default()],
            origin: Origin::default(),
            semantics: Semantics::default(),
            next_symbol: 0,
        }
    }

    fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::default());
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn current(&self) -> &Frame {
        &self.frames[self.frames.len() - 1]
    }

    /// Stamps this origin on every node made from now on.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Stamps these annotations on every node made from now on.
    pub fn set_semantics(&mut self, semantics: Semantics) {
        self.semantics = semantics;
    }

    /// Declares what is known of a symbol.
    pub fn declare_symbol(&mut self, name: &str, info: SymbolInfo) {
        self.srg.symbols.0.insert(Symbol::new(name), info);
    }

    /// A symbol that no value has yet, for a size that only the run reveals.
    pub fn fresh_symbol(&mut self) -> Dim {
        loop {
            let name = format!("u{}", self.next_symbol);
            self.next_symbol += 1;
            if let Entry::Vacant(entry) = self.srg.symbols.0.entry(Symbol::new(&name)) {
                entry.insert(SymbolInfo::default());
                return Dim::symbol(&name);
            }
        }
    }

    /// Records a fact about the model.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.srg.metadata.insert(Arc::from(key), Arc::from(value));
    }

    fn add_node(
        &mut self,
        kind: Option<OpKind>,
        attrs: Attrs,
        types: Vec<TensorType>,
        regions: Vec<SrgGraph>,
    ) -> NodeIndex {
        let node = SrgNode {
            kind,
            attrs,
            types,
            regions,
            origin: self.origin.clone(),
            semantics: self.semantics.clone(),
        };
        self.frame().graph.graph.add_node(node)
    }

    fn add_argument(&mut self, ty: TensorType) -> SrgValue {
        let node = self.add_node(None, Attrs::new(), vec![ty], Vec::new());
        self.frame().graph.arguments.push(node);
        SrgValue { node, result: 0 }
    }

    /// Adds an argument that the caller gives on every call. Only outside regions.
    pub fn input(&mut self, name: &str, ty: TensorType) -> SrgValue {
        self.arguments.push((Arc::from(name), ArgumentKind::Input));
        self.add_argument(ty)
    }

    /// Adds a state argument that starts as the weight `initial` (if given). Only outside regions.
    pub fn state(&mut self, name: &str, ty: TensorType, initial: Option<&str>) -> SrgValue {
        self.arguments.push((Arc::from(name), ArgumentKind::State { initial: initial.map(Arc::from) }));
        self.add_argument(ty)
    }

    /// Adds a weight to the program's table without using it (as the first value of a state).
    ///
    /// # Errors
    /// If the name is taken by another weight.
    pub fn declare_weight(&mut self, name: &str, weight: Weight) -> Result<()> {
        let key: Arc<str> = Arc::from(name);
        match self.srg.weights.get(&key) {
            Some(old)
                if old.ty != weight.ty
                    || old.data.as_ref().map(|d| d.0) != weight.data.as_ref().map(|d| d.0) =>
            {
                Err(input("srg.weight", format!("two different weights are named '{name}'")))
            }
            Some(_) => Ok(()),
            None => {
                self.srg.weights.insert(key, weight);
                Ok(())
            }
        }
    }

    /// Adds a weight and a node that gives its value.
    ///
    /// # Errors
    /// If the name is taken by another weight.
    pub fn weight(&mut self, name: &str, weight: Weight) -> Result<SrgValue> {
        let attrs = weight_attrs(name, &weight);
        self.declare_weight(name, weight)?;
        self.op(OpKind::Weight, &[], attrs)
    }

    /// A literal.
    ///
    /// # Errors
    /// Never for well-formed data; the signature is that of [`SrgBuilder::op`].
    pub fn constant(&mut self, value: TensorData) -> Result<SrgValue> {
        self.op(OpKind::Constant, &[], attrs! { value: value })
    }

    /// An i64 vector of sizes.
    ///
    /// # Errors
    /// If one of them overflowed.
    pub fn dims(&mut self, dims: Vec<Dim>) -> Result<SrgValue> {
        self.op(OpKind::DimExpr, &[], attrs! { exprs: dims, scalar: false })
    }

    /// An i64 scalar size.
    ///
    /// # Errors
    /// If it overflowed.
    pub fn dim(&mut self, dim: Dim) -> Result<SrgValue> {
        self.op(OpKind::DimExpr, &[], attrs! { exprs: vec![dim], scalar: true })
    }

    /// The type of a value.
    pub fn ty(&self, v: SrgValue) -> &TensorType {
        &self.current().graph.graph[v.node].types[v.result as usize]
    }

    /// What is known of an integer value.
    pub fn known(&self, v: SrgValue) -> Option<&SymbolicValue> {
        self.current().known.get(&v)
    }

    /// The concrete value of a `constant` or of a `weight` with content.
    pub fn constant_value(&self, v: SrgValue) -> Option<&TensorData> {
        let node = &self.current().graph.graph[v.node];
        match node.kind? {
            OpKind::Constant => node.attrs.tensor("value"),
            OpKind::Weight => self.srg.weights.get(node.attrs.str("name"))?.data.as_ref().map(|(_, d)| d),
            _ => None,
        }
    }

    /// Records what is known of an integer value (from the file's own shape information).
    pub fn set_known(&mut self, v: SrgValue, value: SymbolicValue) {
        self.frame().known.insert(v, value);
    }

    /// Adds an operation with one result.
    ///
    /// # Errors
    /// The constraint that it violates, see [`djinn_ir::infer`].
    pub fn op(&mut self, kind: OpKind, operands: &[SrgValue], attrs: Attrs) -> Result<SrgValue> {
        let all = self.op_with_regions(kind, operands, attrs, Vec::new())?;
        match all.as_slice() {
            [one] => Ok(*one),
            _ => {
                Err(internal("srg.results", format!("'{}' has {} results, not one", kind.name(), all.len())))
            }
        }
    }

    /// Adds an operation with any number of results and regions.
    ///
    /// # Errors
    /// The constraint that it violates, see [`djinn_ir::infer`].
    pub fn op_with_regions(
        &mut self,
        kind: OpKind,
        operands: &[SrgValue],
        attrs: Attrs,
        regions: Vec<SrgGraph>,
    ) -> Result<Vec<SrgValue>> {
        let lowered: Vec<Graph> = regions.iter().map(crate::lower::lower_graph).collect::<Result<_>>()?;
        let operand_types: Vec<&TensorType> = operands.iter().map(|v| self.ty(*v)).collect();
        let types = infer::infer(kind, &operand_types, &attrs, &lowered)?;
        let known = match types.as_slice() {
            [ty] => {
                let operand_values: Vec<Option<&SymbolicValue>> =
                    operands.iter().map(|v| self.known(*v)).collect();
                match self.weight_value(kind, &attrs) {
                    Some(value) => Some(value),
                    None => symbolic::fold(kind, &attrs, &operand_values, ty),
                }
            }
            _ => None,
        };
        let edges: Vec<(NodeIndex, SrgEdge)> = operands
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let ty = self.ty(*v);
                let bytes = &ty.numel() * &Dim::from(ty.dtype.size());
                let edge =
                    SrgEdge { result: v.result, operand: i as u32, bytes, rate: 1.0, criticality: 0.5 };
                (v.node, edge)
            })
            .collect();
        let count = types.len();
        let node = self.add_node(Some(kind), attrs, types, regions);
        for (source, edge) in edges {
            self.frame().graph.graph.add_edge(source, node, edge);
        }
        if let Some(value) = known {
            self.frame().known.insert(SrgValue { node, result: 0 }, value);
        }
        Ok((0..count as u32).map(|result| SrgValue { node, result }).collect())
    }

    fn weight_value(&self, kind: OpKind, attrs: &Attrs) -> Option<SymbolicValue> {
        if kind != OpKind::Weight {
            return None;
        }
        let (_, data) = self.srg.weights.get(attrs.str("name"))?.data.as_ref()?;
        SymbolicValue::from_data(data)
    }

    /// Starts a region with arguments of these types; nodes go into it until [`SrgBuilder::end_region`].
    pub fn begin_region(&mut self, arguments: Vec<TensorType>) -> Vec<SrgValue> {
        self.frames.push(Frame::default());
        arguments.into_iter().map(|ty| self.add_argument(ty)).collect()
    }

    /// Ends the innermost region, which gives these values, and hands it over for `op_with_regions`.
    ///
    /// # Errors
    /// If no region was begun.
    pub fn end_region(&mut self, results: Vec<SrgValue>) -> Result<SrgGraph> {
        if self.frames.len() < 2 {
            return Err(internal("srg.region", "end_region without begin_region"));
        }
        let mut graph = self.frames.pop().map(|f| f.graph).unwrap_or_default();
        graph.results = results;
        Ok(graph)
    }

    /// Leaves the innermost region without keeping it (after an error inside it).
    pub fn abandon_region(&mut self) {
        if self.frames.len() > 1 {
            self.frames.pop();
        }
    }

    /// Adds a result.
    pub fn output(&mut self, name: &str, value: SrgValue) {
        self.frame().graph.results.push(value);
        self.results.push((Arc::from(name), ResultKind::Output));
    }

    /// Adds a result that is the new value of argument number `argument`.
    pub fn update(&mut self, argument: u32, value: SrgValue) {
        let name = self.arguments.get(argument as usize).map_or_else(|| Arc::from("?"), |a| Arc::clone(&a.0));
        self.frame().graph.results.push(value);
        self.results.push((name, ResultKind::Update(argument)));
    }

    /// Ends the function and gives the program.
    ///
    /// # Errors
    /// If a region was left open or an update names no argument.
    pub fn finish(mut self) -> Result<Srg> {
        if self.frames.len() != 1 {
            return Err(internal("srg.region", "a region was left open"));
        }
        let argument_count = self.arguments.len();
        let bad = self
            .results
            .iter()
            .any(|(_, k)| matches!(k, ResultKind::Update(a) if *a as usize >= argument_count));
        if bad {
            return Err(input("srg.update", "an update names an argument that does not exist"));
        }
        let body = self.frames.pop().map(|f| f.graph).unwrap_or_default();
        let function =
            SrgFunction { name: self.name, body, arguments: self.arguments, results: self.results };
        self.srg.functions.push(function);
        Ok(self.srg)
    }
}
