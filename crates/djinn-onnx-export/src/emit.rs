//! The emitter: nodes, initializers and names of the model under construction.
//!
//! Nodes are appended to the innermost graph scope. Nothing here knows the IR's operations; the emitter guarantees
//! unique names, inserts casts where ONNX's type constraints demand them, shares equal constants, and shares the
//! helper nodes that are asked for through [`Emitter::cached`].

use crate::ExportOptions;
use crate::proto::{elem_type, int};
use crate::schema::{Schema, schema};
use djinn_diag::{Result, unsupported};
use djinn_ir::{ContentHash, DType, Dim, SymbolTable, TensorData, TensorType};
use djinn_onnx_proto as onnx;
use std::collections::{BTreeMap, BTreeSet};

/// One initializer of the main graph; subgraphs refer to it by name.
pub(crate) struct Initializer {
    pub(crate) name: String,
    pub(crate) ty: TensorType,
    /// `None` for a weight whose values the module does not have.
    pub(crate) data: Option<TensorData>,
}

/// A value from whose shape sizes can be read at run time.
#[derive(Clone)]
pub(crate) struct ShapeSource {
    pub(crate) name: String,
    pub(crate) shape: Vec<Dim>,
}

/// One graph under construction: the main graph or a subgraph of an `If`, `Loop` or `Scan`.
#[derive(Default)]
struct Scope {
    nodes: Vec<onnx::NodeProto>,
    cache: BTreeMap<String, String>,
    sources: Vec<ShapeSource>,
}

/// See the module's description.
pub(crate) struct Emitter<'m> {
    pub(crate) options: &'m ExportOptions,
    pub(crate) symbols: &'m SymbolTable,
    pub(crate) initializers: Vec<Initializer>,
    scopes: Vec<Scope>,
    names: BTreeSet<String>,
    types: BTreeMap<String, TensorType>,
    source_names: BTreeSet<String>,
    constants: BTreeMap<ContentHash, String>,
    counter: BTreeMap<String, usize>,
    metadata: Vec<onnx::StringStringEntryProto>,
    node_scope: String,
}

impl<'m> Emitter<'m> {
    /// An emitter with one empty main graph.
    pub(crate) fn new(options: &'m ExportOptions, symbols: &'m SymbolTable) -> Self {
        Emitter {
            options,
            symbols,
            initializers: Vec::new(),
            scopes: vec![Scope::default()],
            names: BTreeSet::new(),
            types: BTreeMap::new(),
            source_names: BTreeSet::new(),
            constants: BTreeMap::new(),
            counter: BTreeMap::new(),
            metadata: Vec::new(),
            node_scope: String::new(),
        }
    }

    /// The opset that is written.
    pub(crate) fn opset(&self) -> i64 {
        self.options.opset
    }

    /// Takes a name that must appear literally in the model; false if it is taken already.
    pub(crate) fn reserve(&mut self, name: &str) -> bool {
        self.names.insert(name.to_owned())
    }

    /// Records the type of a named value.
    pub(crate) fn declare(&mut self, name: &str, ty: TensorType) {
        self.types.insert(name.to_owned(), ty);
    }

    /// The type of a value that was emitted or declared.
    pub(crate) fn ty(&self, name: &str) -> Option<&TensorType> {
        self.types.get(name)
    }

    /// A name nobody uses yet, starting with `stem`.
    pub(crate) fn fresh(&mut self, stem: &str) -> String {
        let next = self.counter.entry(stem.to_owned()).or_insert(0);
        loop {
            let name = format!("{stem}_{next}");
            *next += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Sets what the nodes emitted from now on say about where they come from.
    pub(crate) fn set_origin(&mut self, scope: &str, metadata: Vec<onnx::StringStringEntryProto>) {
        scope.clone_into(&mut self.node_scope);
        self.metadata = metadata;
    }

    /// What [`Emitter::set_origin`] was last given.
    pub(crate) fn origin(&self) -> (String, Vec<onnx::StringStringEntryProto>) {
        (self.node_scope.clone(), self.metadata.clone())
    }

    /// Begins a subgraph.
    pub(crate) fn open_scope(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Ends the innermost subgraph and gives its nodes.
    pub(crate) fn close_scope(&mut self) -> Vec<onnx::NodeProto> {
        self.scopes.pop().map(|s| s.nodes).unwrap_or_default()
    }

    /// Was this value defined by a node of the innermost scope?
    pub(crate) fn defined_here(&self, name: &str) -> bool {
        self.scopes.last().is_some_and(|s| s.nodes.iter().any(|n| n.output.iter().any(|o| o == name)))
    }

    /// Makes a value available as a source of sizes in the innermost scope.
    pub(crate) fn add_source(&mut self, name: &str, shape: &[Dim]) {
        let new = self.source_names.insert(name.to_owned());
        if let (true, Some(scope)) = (new, self.scopes.last_mut()) {
            scope.sources.push(ShapeSource { name: name.to_owned(), shape: shape.to_vec() });
        }
    }

    /// Sources of sizes that are visible here, outermost and oldest first.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &ShapeSource> {
        self.scopes.iter().flat_map(|s| &s.sources)
    }

    /// Appends a node with one result.
    pub(crate) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attrs: Vec<onnx::AttributeProto>,
        ty: TensorType,
    ) -> Result<String> {
        let mut names = self.nodes(op, inputs, attrs, &[ty])?;
        Ok(names.swap_remove(0))
    }

    /// Appends a node; empty input names are left out, element types are adapted to the operator's schema.
    pub(crate) fn nodes(
        &mut self,
        op: &str,
        inputs: &[&str],
        attrs: Vec<onnx::AttributeProto>,
        types: &[TensorType],
    ) -> Result<Vec<String>> {
        let mut inputs: Vec<String> = inputs.iter().map(|s| (*s).to_owned()).collect();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let Some(schema) = schema(op, self.opset()).filter(|_| op != "Identity") else {
            return Ok(self.raw_node(op, inputs, attrs, types));
        };
        let stand_ins = self.adapt_inputs(schema, &mut inputs)?;
        let mut emitted = types.to_vec();
        for (i, ty) in emitted.iter_mut().enumerate() {
            if let Some(dtype) = schema.output(i).and_then(|var| stand_ins.get(&var)) {
                ty.dtype = *dtype;
            }
        }
        let names = self.raw_node(op, inputs, attrs, &emitted);
        names.iter().zip(types).map(|(name, ty)| self.cast(name, ty.dtype)).collect()
    }

    /// Casts every input whose element type the schema refuses; gives the element type of every adapted variable.
    fn adapt_inputs(&mut self, schema: &Schema, inputs: &mut [String]) -> Result<BTreeMap<usize, DType>> {
        let mut stand_ins = BTreeMap::new();
        for (i, name) in inputs.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let (Some(var), Some(ty)) = (schema.input(i), self.types.get(name)) else { continue };
            if !schema.accepts(var, ty.dtype) {
                let Some(dtype) = schema.stand_in(var, ty.dtype) else {
                    let message =
                        format!("ONNX {} does not take {} and nothing stands in", schema.op, ty.dtype);
                    return Err(unsupported("onnx-export.dtype", message));
                };
                stand_ins.insert(var, dtype);
            }
        }
        for (i, name) in inputs.iter_mut().enumerate() {
            let stand_in = schema.input(i).and_then(|var| stand_ins.get(&var));
            if let Some(dtype) = stand_in.filter(|_| !name.is_empty()) {
                *name = self.cast(name, *dtype)?;
            }
        }
        Ok(stand_ins)
    }

    fn raw_node(
        &mut self,
        op: &str,
        inputs: Vec<String>,
        attrs: Vec<onnx::AttributeProto>,
        types: &[TensorType],
    ) -> Vec<String> {
        let stem = op.to_lowercase();
        let output: Vec<String> = types.iter().map(|_| self.fresh(&stem)).collect();
        for (name, ty) in output.iter().zip(types) {
            self.types.insert(name.clone(), ty.clone());
        }
        let first = output.first().cloned().unwrap_or_default();
        let name = if self.node_scope.is_empty() { first } else { format!("{}/{first}", self.node_scope) };
        let node = onnx::NodeProto {
            input: inputs,
            output: output.clone(),
            name,
            op_type: op.to_owned(),
            attribute: attrs,
            metadata_props: self.metadata.clone(),
            ..Default::default()
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.nodes.push(node);
        }
        output
    }

    /// Like [`Emitter::node`], but gives the result of an equal earlier node that was asked for in this way.
    pub(crate) fn cached(
        &mut self,
        op: &str,
        inputs: &[&str],
        attrs: Vec<onnx::AttributeProto>,
        ty: TensorType,
    ) -> Result<String> {
        let key = format!("{op}|{}|{attrs:?}", inputs.join(","));
        if let Some(name) = self.scopes.iter().find_map(|s| s.cache.get(&key)) {
            return Ok(name.clone());
        }
        // A shared node belongs to no particular place of the model's code.
        let (scope, metadata) = self.origin();
        self.set_origin("", Vec::new());
        let name = self.node(op, inputs, attrs, ty);
        self.set_origin(&scope, metadata);
        let name = name?;
        if let Some(scope) = self.scopes.last_mut() {
            scope.cache.insert(key, name.clone());
        }
        Ok(name)
    }

    /// The value as `dtype`: itself if it has that type already.
    pub(crate) fn cast(&mut self, name: &str, dtype: DType) -> Result<String> {
        let ty = self.types.get(name).cloned().unwrap_or(TensorType::scalar(dtype));
        if ty.dtype == dtype {
            return Ok(name.to_owned());
        }
        let attrs = vec![int("to", i64::from(elem_type(dtype)))];
        self.cached("Cast", &[name], attrs, ty.with_dtype(dtype))
    }

    /// An initializer with this content; equal contents share one.
    pub(crate) fn constant(&mut self, data: &TensorData) -> String {
        let stem = if data.shape().is_empty() { "scalar" } else { "const" };
        self.initializer(stem, data.content_hash(), data)
    }

    /// A weight with content: the initializer keeps the name of the first weight that has this content.
    pub(crate) fn weight(&mut self, name: &str, hash: ContentHash, data: &TensorData) -> String {
        if let Some(known) = self.constants.get(&hash) {
            return known.clone();
        }
        let free = self.names.insert(name.to_owned());
        if !free {
            return self.initializer(name, hash, data);
        }
        self.add_initializer(name, Some(hash), data.ty(), Some(data.clone()))
    }

    /// A weight without content, declared by type alone.
    pub(crate) fn missing_weight(&mut self, name: &str, ty: &TensorType) -> String {
        if self.initializers.iter().any(|i| i.name == name && i.data.is_none()) {
            return name.to_owned();
        }
        let name = if self.names.insert(name.to_owned()) { name.to_owned() } else { self.fresh(name) };
        self.add_initializer(&name, None, ty.clone(), None)
    }

    fn initializer(&mut self, stem: &str, hash: ContentHash, data: &TensorData) -> String {
        if let Some(known) = self.constants.get(&hash) {
            return known.clone();
        }
        let name = self.fresh(stem);
        self.add_initializer(&name, Some(hash), data.ty(), Some(data.clone()))
    }

    fn add_initializer(
        &mut self,
        name: &str,
        hash: Option<ContentHash>,
        ty: TensorType,
        data: Option<TensorData>,
    ) -> String {
        self.types.insert(name.to_owned(), ty.clone());
        self.initializers.push(Initializer { name: name.to_owned(), ty, data });
        if let Some(hash) = hash {
            self.constants.insert(hash, name.to_owned());
        }
        name.to_owned()
    }

    /// The content of an initializer.
    pub(crate) fn initializer_data(&self, name: &str) -> Option<&TensorData> {
        self.initializers.iter().find(|i| i.name == name)?.data.as_ref()
    }

    /// A constant i64 vector.
    pub(crate) fn i64s(&mut self, values: &[i64]) -> Result<String> {
        let data = TensorData::from_i64(&[values.len()], values);
        Ok(self.constant(&data.ok_or_else(too_large)?))
    }

    /// A constant i64 scalar.
    pub(crate) fn i64_scalar(&mut self, value: i64) -> Result<String> {
        Ok(self.constant(&TensorData::from_i64(&[], &[value]).ok_or_else(too_large)?))
    }

    /// A constant scalar of any type.
    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> Result<String> {
        Ok(self.constant(&TensorData::splat(dtype, &[], value).ok_or_else(too_large)?))
    }
}

/// The diagnostic for a constant whose size does not fit the address space.
pub(crate) fn too_large() -> Box<djinn_diag::Diagnostic> {
    unsupported("onnx-export.constant", "a constant is too large to be written")
}
