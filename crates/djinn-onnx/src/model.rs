//! The walk over models, graphs, regions and functions.
//!
//! A [`Scope`] maps the names of one graph to values. The regions of control-flow operations see nothing but their
//! arguments, so outer values that they read become arguments; literals are made anew where they are used.

use crate::attributes::{Attributes, CallAttributes};
use crate::devices::Configurations;
use crate::names::{Hint, Symbols, origin};
use crate::node::{Node, Outputs};
use crate::ops::{self, Table};
use crate::order::{execution_order, free_names};
use crate::tensor::{self, Literal};
use crate::{ImportReport, Imported, Resolver};
use djinn_diag::{Context, Culprit, Diagnostic, Result, input, unsupported};
use djinn_ir::{Dim, OpKind, TensorData, TensorType, attrs};
use djinn_onnx_proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use djinn_srg::{Origin, Semantics, SrgBuilder, SrgGraph, SrgValue};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;

/// IR versions of the ONNX specification that can be read.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=14;
/// Versions of the default operator set that can be read.
const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;
/// Nesting of subgraphs and function calls, at most.
const MAX_DEPTH: usize = 48;
/// Nodes imported, at most, functions and repeated loop bodies counted each time.
const MAX_NODES: usize = 250_000;
/// Rank of a value, at most.
pub(crate) const MAX_RANK: usize = 64;
/// Length of a symbolic size in text form, at most: longer ones are the mark of a hostile file.
const MAX_SIZE_TEXT: usize = 4096;
/// Attempts at finding types of loop-carried values that every iteration agrees on.
const MAX_LOOP_ATTEMPTS: usize = 4;

/// Operator set versions by domain.
pub(crate) type Opsets = Rc<BTreeMap<String, i64>>;
type FunctionKey = (String, String, String);

/// What names mean in one graph.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    values: BTreeMap<String, SrgValue>,
    /// Formal inputs of a function that the call leaves out.
    absent: BTreeSet<String>,
    literals: BTreeMap<String, Literal>,
    hints: BTreeMap<String, Hint>,
    opsets: Opsets,
    call: Option<Rc<CallAttributes>>,
    origin: Option<Origin>,
    /// Does a name that is unknown here stand for the enclosing graph's value?
    sees_values: bool,
    /// Does a name that is unknown here stand for the enclosing graph's literal?
    sees_literals: bool,
}

/// State of one import.
pub(crate) struct Importer<'m> {
    /// The program under construction.
    pub(crate) b: SrgBuilder,
    /// What happened so far.
    pub(crate) report: ImportReport,
    /// Reads external data.
    pub(crate) external: &'m Resolver<'m>,
    devices: Configurations,
    functions: BTreeMap<FunctionKey, &'m FunctionProto>,
    calls: Vec<FunctionKey>,
    scopes: Vec<Scope>,
    symbols: Symbols,
    /// How many weights of one name had to be renamed.
    renamed: BTreeMap<String, usize>,
    table: Table,
}

/// Imports a decoded model.
pub(crate) fn import_model(model: &ModelProto, external: &Resolver<'_>) -> Result<Imported> {
    check_versions(model)?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        input("onnx.graph", "the model has no graph").help("the file is damaged or no ONNX model")
    })?;
    let mut importer = Importer {
        b: SrgBuilder::new(&function_name(&graph.name)),
        report: ImportReport::default(),
        external,
        devices: Configurations::new(model),
        functions: BTreeMap::new(),
        calls: Vec::new(),
        scopes: Vec::new(),
        symbols: Symbols::default(),
        renamed: BTreeMap::new(),
        table: ops::table(),
    };
    for f in &model.functions {
        let key = (domain(&f.domain), f.name.clone(), f.overload.clone());
        if importer.functions.insert(key, f).is_some() {
            return Err(input("onnx.function", format!("the function '{}' is defined twice", f.name))
                .help("the file is damaged; export the model again"));
        }
    }
    importer.metadata(model);
    importer.main(graph, opsets(&model.opset_import)?)?;
    let Importer { b, mut report, .. } = importer;
    let srg = b.finish()?;
    for w in srg.weights.values() {
        *report.weights.entry(w.ty.dtype.to_string()).or_default() += 1;
        report.weights_without_values += usize::from(w.data.is_none());
    }
    Ok(Imported { srg, report })
}

fn check_versions(model: &ModelProto) -> Result<()> {
    let version = model.ir_version.unwrap_or(0);
    if !IR_VERSIONS.contains(&version) {
        let message = format!("the model has IR version {version}; versions 3 to 14 can be read");
        return Err(match version {
            15.. => unsupported("onnx.ir-version", message)
                .help("export the model for an older IR version, or update Djinn"),
            _ => input("onnx.ir-version", message).help("the file is no ONNX model, damaged or too old"),
        });
    }
    Ok(())
}

/// `ai.onnx` is another name of the default domain.
fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_owned() }
}

fn opsets(imports: &[OperatorSetIdProto]) -> Result<Opsets> {
    let mut out = BTreeMap::new();
    for o in imports {
        let key = domain(&o.domain);
        if key.is_empty() && !OPSETS.contains(&o.version) {
            return Err(unsupported(
                "onnx.opset",
                format!("operator set {} of the default domain is not known; 1 to 28 are", o.version),
            )
            .help("export the model for operator set 20, or convert it with onnx.version_converter"));
        }
        if let Some(other) = out.insert(key, o.version).filter(|v| *v != o.version) {
            let name = if o.domain.is_empty() { "ai.onnx" } else { &o.domain };
            let message = format!("the domain '{name}' has operator sets {other} and {}", o.version);
            return Err(input("onnx.opset", message)
                .help("a model names one operator set for a domain; export the model again"));
        }
    }
    Ok(Rc::new(out))
}

/// Takes this many bytes of text, then fails.
struct Budget(usize);

impl std::fmt::Write for Budget {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0 = self.0.checked_sub(s.len()).ok_or(std::fmt::Error)?;
        Ok(())
    }
}

/// The graph's name as an identifier, or `main`.
fn function_name(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    match clean.chars().next() {
        Some(c) if !c.is_ascii_digit() => clean,
        Some(_) => format!("_{clean}"),
        None => "main".into(),
    }
}

impl Importer<'_> {
    fn metadata(&mut self, model: &ModelProto) {
        let facts = [("producer", &model.producer_name), ("producer_version", &model.producer_version)];
        for (key, value) in facts.into_iter().filter(|(_, v)| !v.is_empty()) {
            self.b.metadata(key, value);
        }
        for p in &model.metadata_props {
            self.b.metadata(&p.key, &p.value);
        }
    }

    fn main(&mut self, graph: &GraphProto, opsets: Opsets) -> Result<()> {
        // All symbols of the file are declared before fresh ones are made.
        let hints = self.symbols.hints(graph, &mut self.b);
        let literals = self.literals(graph)?;
        self.scopes.push(Scope { opsets, hints, literals, ..Scope::default() });
        for i in &graph.input {
            if self.scope().literals.contains_key(&i.name) {
                continue;
            }
            let ty = self.symbols.input_type(i, &mut self.b)?;
            let v = self.b.input(&i.name, ty);
            self.define(&i.name, v)?;
        }
        self.nodes(&graph.node)?;
        let mut names = BTreeSet::new();
        for o in &graph.output {
            if !names.insert(&o.name) {
                return Err(input("onnx.ssa", format!("the output '{}' is listed twice", o.name))
                    .help("the file is damaged; export the model again"));
            }
            let v = self.value(&o.name)?.ok_or_else(|| undefined(&o.name)).at(|| "graph outputs")?;
            self.b.output(&o.name, v);
        }
        self.scopes.pop();
        Ok(())
    }

    fn literals(&mut self, graph: &GraphProto) -> Result<BTreeMap<String, Literal>> {
        if let Some(s) = graph.sparse_initializer.first() {
            let name = s.values.as_ref().map_or("", |v| v.name.as_str());
            return Err(unsupported("onnx.sparse", format!("the sparse tensor '{name}' is not supported"))
                .help("store it as a dense tensor"));
        }
        let mut out = BTreeMap::new();
        for t in &graph.initializer {
            let (ty, data) = tensor::read(t, self.external)?;
            if out.insert(t.name.clone(), Literal::of_initializer(ty, data)).is_some() {
                return Err(input("onnx.ssa", format!("the initializer '{}' is defined twice", t.name))
                    .help("the file is damaged; export the model again"));
            }
        }
        Ok(out)
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    /// Binds a name that the graph defines.
    fn define(&mut self, name: &str, v: SrgValue) -> Result<()> {
        let scope = self.scope();
        if scope.literals.contains_key(name) || scope.values.insert(name.to_owned(), v).is_some() {
            return Err(input("onnx.ssa", format!("the value '{name}' is defined twice"))
                .help("every value must be defined by exactly one node; export the model again"));
        }
        Ok(())
    }

    /// Binds a name to a literal that is made where it is used.
    pub(crate) fn define_literal(&mut self, name: &str, literal: Literal) -> Result<()> {
        let scope = self.scope();
        if scope.values.contains_key(name) || scope.literals.insert(name.to_owned(), literal).is_some() {
            return Err(input("onnx.ssa", format!("the value '{name}' is defined twice"))
                .help("every value must be defined by exactly one node; export the model again"));
        }
        Ok(())
    }

    /// The value of a name; `None` for an operand that a function call leaves out.
    fn value(&mut self, name: &str) -> Result<Option<SrgValue>> {
        let (mut values, mut literals) = (true, true);
        let mut found: Option<Literal> = None;
        for scope in self.scopes.iter().rev() {
            if values {
                if let Some(v) = scope.values.get(name) {
                    return Ok(Some(*v));
                }
                if scope.absent.contains(name) {
                    return Ok(None);
                }
            }
            if let Some(l) = scope.literals.get(name).filter(|_| literals) {
                found = Some(l.clone());
                break;
            }
            values &= scope.sees_values;
            literals &= scope.sees_literals;
        }
        let v = match found.ok_or_else(|| undefined(name))? {
            Literal::Constant(data) => self.b.constant(data)?,
            Literal::Weight(weight) => self.weight(name, &weight)?,
        };
        self.scope().values.insert(name.to_owned(), v);
        Ok(Some(v))
    }

    /// A `weight` operation; the name gets a number if another weight has taken it.
    fn weight(&mut self, name: &str, weight: &djinn_ir::Weight) -> Result<SrgValue> {
        let base = if name.is_empty() { "weight" } else { name };
        let mut unique = base.to_owned();
        while self.b.declare_weight(&unique, weight.clone()).is_err() {
            let n = self.renamed.entry(base.to_owned()).or_default();
            *n += 1;
            unique = format!("{base}#{n}");
        }
        self.b.weight(&unique, weight.clone())
    }

    /// Reads a literal that is not an initializer.
    pub(crate) fn read_tensor(&self, t: &TensorProto) -> Result<TensorData> {
        tensor::read(t, self.external)?.1.ok_or_else(|| {
            input("onnx.tensor-data", "the tensor of this node has no data")
                .help("the file is damaged or its external data is missing")
        })
    }

    /// The type that the file declares for a name.
    pub(crate) fn hint(&self, name: &str) -> Option<&Hint> {
        self.scopes.last()?.hints.get(name)
    }

    fn nodes(&mut self, nodes: &[NodeProto]) -> Result<()> {
        for i in execution_order(nodes)? {
            let n = &nodes[i];
            let place = || format!("node {i} '{}' ({})", n.name, n.op_type);
            self.report.nodes += 1;
            if self.report.nodes > MAX_NODES {
                return Err(unsupported("onnx.size", format!("the model has more than {MAX_NODES} nodes"))
                    .help(
                        "functions are inlined: a function that calls others many times may grow too large",
                    ));
            }
            self.node(n).map_err(with_help).at(place)?;
        }
        Ok(())
    }

    fn node(&mut self, n: &NodeProto) -> Result<()> {
        let key = (domain(&n.domain), n.op_type.clone(), n.overload.clone());
        let outer = self.scope().origin.clone();
        self.b.set_origin(origin(n, outer.as_ref()));
        if !self.devices.is_empty() {
            self.b.set_semantics(Semantics { device: self.devices.device(n)?, ..Semantics::default() });
        }
        if let Some(f) = self.functions.get(&key).copied() {
            return self.call(key, f, n);
        }
        let version = self.scope().opsets.get(&key.0).copied().unwrap_or(1);
        if key.0.is_empty() && !self.scope().opsets.contains_key("") {
            return Err(input("onnx.opset", "the model does not say which operator set it uses")
                .help("the file is damaged; export the model again"));
        }
        let call = self.scope().call.clone();
        let attributes = Attributes::new(n, call.as_deref());
        let inputs = self.operands(n)?;
        let handler = ops::find(&self.table, &key.0, &key.1, version);
        let mut cx = Node { imp: self, proto: n, attrs: attributes, version, inputs };
        let result = match handler {
            Some(handler) => handler(&mut cx),
            None => Err(cx.unsupported("this operator is not supported")),
        };
        let outputs = match result {
            Err(e) if e.culprit == Culprit::Unsupported => opaque(&mut cx, e)?,
            other => other?,
        };
        self.bind(n, &outputs)
    }

    fn operands(&mut self, n: &NodeProto) -> Result<Vec<Option<SrgValue>>> {
        n.input.iter().map(|name| if name.is_empty() { Ok(None) } else { self.value(name) }).collect()
    }

    /// Binds a node's outputs after checking them against the declared types.
    fn bind(&mut self, n: &NodeProto, outputs: &Outputs) -> Result<()> {
        for (i, name) in n.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if self.scope().literals.contains_key(name) && outputs.is_empty() {
                continue;
            }
            let v = outputs.get(i).copied().flatten().ok_or_else(|| {
                unsupported(
                    "onnx.output",
                    format!("output {i} ('{name}') of '{}' is not supported", n.op_type),
                )
                .help("export the model without this output")
            })?;
            self.check_size(v)?;
            self.check_declared(name, v)?;
            self.define(name, v)?;
        }
        Ok(())
    }

    /// Refuses types that no real model has, whose handling would take very long.
    fn check_size(&self, v: SrgValue) -> Result<()> {
        let ty = self.b.ty(v);
        if ty.rank() > MAX_RANK {
            return Err(unsupported("onnx.rank", format!("a value has more than {MAX_RANK} axes"))
                .help("export the model with tensors of smaller rank"));
        }
        let mut symbolic = ty.shape.iter().filter(|d| d.as_const().is_none());
        if symbolic.any(|d| d.is_overflow() || write!(Budget(MAX_SIZE_TEXT), "{d}").is_err()) {
            return Err(unsupported("onnx.dim", "a symbolic size grows beyond all bounds")
                .help("export the model with fewer symbolic sizes"));
        }
        Ok(())
    }

    fn check_declared(&mut self, name: &str, v: SrgValue) -> Result<()> {
        let Some(hint) = self.scopes.last().and_then(|s| s.hints.get(name)) else { return Ok(()) };
        let ty = self.b.ty(v);
        let rank_differs = hint.shape.as_ref().is_some_and(|s| s.len() != ty.rank());
        if hint.dtype != ty.dtype || rank_differs {
            let declared = hint.shape.as_ref().map_or_else(
                || format!("{}, any rank", hint.dtype),
                |s| format!("{} of rank {}", hint.dtype, s.len()),
            );
            return Err(input("onnx.type", format!("'{name}' is declared as {declared}, but is {ty}"))
                .help("the file contradicts itself; run shape inference on it or export it again"));
        }
        let differences: Vec<Option<i64>> = (0..ty.rank())
            .filter_map(|i| {
                let declared = hint.dim(i, ty.rank())?;
                (declared != &ty.shape[i]).then(|| (declared - &ty.shape[i]).as_const())
            })
            .collect();
        self.report.type_disagreements += usize::from(differences.iter().any(Option::is_some));
        self.report.type_unproved += usize::from(differences.iter().any(Option::is_none));
        Ok(())
    }

    /// Inlines a call of a model-local function.
    fn call(&mut self, key: FunctionKey, f: &FunctionProto, n: &NodeProto) -> Result<()> {
        if self.calls.contains(&key) {
            return Err(input("onnx.function", format!("the function '{}' calls itself", f.name))
                .help("functions of ONNX models must not be recursive"));
        }
        let (inputs, call) = (self.operands(n)?, self.scope().call.clone());
        let mut given: CallAttributes =
            f.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
        let attributes = Attributes::new(n, call.as_deref());
        given.extend(attributes.all().iter().map(|a| (a.name.clone(), a.clone())));
        if inputs.len() > f.input.len() {
            return Err(input("onnx.function", format!("'{}' takes {} operands", f.name, f.input.len()))
                .help("the file is damaged; export the model again"));
        }
        let mut scope = Scope { call: Some(Rc::new(given)), ..Scope::default() };
        scope.opsets = if f.opset_import.is_empty() {
            Rc::clone(&self.scope().opsets)
        } else {
            opsets(&f.opset_import)?
        };
        let outer = self.scope().origin.clone();
        scope.origin = Some(origin(n, outer.as_ref()));
        for (i, name) in f.input.iter().enumerate() {
            match inputs.get(i).copied().flatten() {
                Some(v) => drop(scope.values.insert(name.clone(), v)),
                None => drop(scope.absent.insert(name.clone())),
            }
        }
        self.enter(scope)?;
        self.calls.push(key);
        self.nodes(&f.node).at(|| format!("function '{}'", f.name))?;
        let mut outputs = Outputs::new();
        for (i, name) in f.output.iter().enumerate() {
            let used = n.output.get(i).is_some_and(|o| !o.is_empty());
            outputs.push(if used { self.value(name)? } else { None });
        }
        self.calls.pop();
        self.scopes.pop();
        self.bind(n, &outputs)
    }

    fn enter(&mut self, scope: Scope) -> Result<()> {
        if self.scopes.len() >= MAX_DEPTH {
            return Err(unsupported(
                "onnx.depth",
                format!("subgraphs and functions are nested more than {MAX_DEPTH} deep"),
            )
            .help("flatten the model"));
        }
        self.scopes.push(scope);
        Ok(())
    }

    fn child(&mut self, g: &GraphProto, sees_values: bool) -> Result<Scope> {
        let hints = self.symbols.hints(g, &mut self.b);
        let literals = self.literals(g)?;
        let parent = self.scope();
        let (opsets, call) = (Rc::clone(&parent.opsets), parent.call.clone());
        let origin = parent.origin.clone();
        Ok(Scope {
            opsets,
            call,
            origin,
            hints,
            literals,
            sees_values,
            sees_literals: true,
            ..Scope::default()
        })
    }

    /// Runs a graph without inputs in place of the current node and gives its outputs.
    pub(crate) fn inline(&mut self, g: &GraphProto) -> Result<Outputs> {
        let scope = self.child(g, true)?;
        self.enter(scope)?;
        self.nodes(&g.node)?;
        let out = self.graph_outputs(g)?;
        self.scopes.pop();
        Ok(out.into_iter().map(Some).collect())
    }

    fn graph_outputs(&mut self, g: &GraphProto) -> Result<Vec<SrgValue>> {
        g.output.iter().map(|o| self.value(&o.name)?.ok_or_else(|| undefined(&o.name))).collect()
    }

    /// Outer values, literals apart, that the graphs read.
    pub(crate) fn captures(&mut self, graphs: &[&GraphProto]) -> Result<Vec<(String, SrgValue)>> {
        let names: BTreeSet<&str> = graphs.iter().flat_map(|g| free_names(g)).collect();
        let mut out = Vec::new();
        for name in names {
            if self.is_literal(name) {
                continue;
            }
            if let Some(v) = self.value(name)? {
                out.push((name.to_owned(), v));
            }
        }
        Ok(out)
    }

    fn is_literal(&self, name: &str) -> bool {
        for scope in self.scopes.iter().rev() {
            if scope.literals.contains_key(name) {
                return true;
            }
            if scope.values.contains_key(name) || !scope.sees_literals {
                return false;
            }
        }
        false
    }

    /// Runs a graph as a region: `own` are the types of the arguments that stand for the graph's inputs, `captured`
    /// the outer values that follow. `finish` makes the region's results from its arguments and the graph's outputs.
    pub(crate) fn region(
        &mut self,
        g: &GraphProto,
        own: &[TensorType],
        captured: &[(String, SrgValue)],
        start: impl FnOnce(&mut Self, &[SrgValue]) -> Result<Vec<SrgValue>>,
        finish: impl FnOnce(&mut Self, &[SrgValue], Vec<SrgValue>) -> Result<Vec<SrgValue>>,
    ) -> Result<SrgGraph> {
        let mut scope = self.child(g, false)?;
        let known: Vec<_> = captured.iter().map(|(_, v)| self.b.known(*v).cloned()).collect();
        let mut types = own.to_vec();
        types.extend(captured.iter().map(|(_, v)| self.b.ty(*v).clone()));
        let arguments = self.b.begin_region(types);
        for (i, (name, _)) in captured.iter().enumerate() {
            let v = arguments[own.len() + i];
            scope.values.insert(name.clone(), v);
            if let Some(value) = &known[i] {
                self.b.set_known(v, value.clone());
            }
        }
        let inputs = start(self, &arguments)?;
        if inputs.len() != g.input.len() {
            return Err(input(
                "onnx.subgraph",
                format!("a subgraph takes {} values, but gets {}", g.input.len(), inputs.len()),
            )
            .help("the file is damaged; export the model again"));
        }
        scope.values.extend(g.input.iter().zip(inputs).map(|(i, v)| (i.name.clone(), v)));
        self.enter(scope)?;
        self.nodes(&g.node)?;
        let outputs = self.graph_outputs(g)?;
        let results = finish(self, &arguments, outputs)?;
        self.scopes.pop();
        self.b.end_region(results)
    }

    /// A `loop` whose region runs `g`; see [`LoopParts`].
    pub(crate) fn run_loop(&mut self, g: &GraphProto, parts: &LoopParts<'_>) -> Result<Vec<SrgValue>> {
        let captured = self.captures(&[g])?;
        let mut carried: Vec<TensorType> = parts.carried.iter().map(|v| self.b.ty(*v).clone()).collect();
        let invariant: Vec<TensorType> = parts.invariant.iter().map(|v| self.b.ty(*v).clone()).collect();
        let mut general: BTreeSet<Dim> = BTreeSet::new();
        for _ in 0..MAX_LOOP_ATTEMPTS {
            let head = [TensorType::scalar(djinn_ir::DType::I64), TensorType::scalar(djinn_ir::DType::Bool)];
            let own: Vec<TensorType> =
                head.into_iter().chain(carried.clone()).chain(invariant.clone()).collect();
            let mut result_types: Vec<TensorType> = Vec::new();
            let region = self.region(
                g,
                &own,
                &captured,
                |imp, args| (parts.start)(imp, args),
                |imp, args, out| {
                    let out = (parts.finish)(imp, args, out)?;
                    result_types = out.iter().map(|v| imp.b.ty(*v).clone()).collect();
                    Ok(out)
                },
            )?;
            if result_types.len() < carried.len() + 1 {
                return Err(input("onnx.subgraph", "the loop body gives too few values")
                    .help("the file is damaged; export the model again"));
            }
            if self.generalize(&mut carried, &result_types[1..], &mut general)? {
                continue;
            }
            let mut types = self.loop_result_types(parts, &carried);
            types.extend(result_types[1 + carried.len()..].iter().map(|t| {
                let shape = std::iter::once(parts.steps.clone()).chain(t.shape.iter().cloned());
                TensorType::new(t.dtype, shape)
            }));
            let mut operands = vec![parts.trip_count, parts.cond];
            operands.extend_from_slice(parts.carried);
            operands.extend_from_slice(parts.invariant);
            operands.extend(captured.iter().map(|(_, v)| *v));
            let a = attrs! { carried: carried.len() as i64, types: types };
            return self.b.op_with_regions(OpKind::Loop, &operands, a, vec![region]);
        }
        Err(unsupported("onnx.loop", "the sizes of the loop-carried values do not settle")
            .help("export the model with loop-carried values of fixed rank and size"))
    }

    /// Replaces sizes that an iteration changes by fresh symbols; was there one?
    fn generalize(
        &mut self,
        carried: &mut [TensorType],
        after: &[TensorType],
        general: &mut BTreeSet<Dim>,
    ) -> Result<bool> {
        let mut changed = false;
        for (before, after) in carried.iter_mut().zip(after) {
            if before.dtype != after.dtype {
                return Err(input("onnx.subgraph", format!("a loop-carried value {before} becomes {after}"))
                    .help("the file is damaged; export the model again"));
            }
            if before.rank() != after.rank() {
                return Err(unsupported(
                    "onnx.loop",
                    format!("a loop-carried value {before} becomes {after}"),
                )
                .help("export the model with loop-carried values of fixed rank"));
            }
            for (b, a) in before.shape.iter_mut().zip(&after.shape) {
                if b != a && !general.contains(b) {
                    *b = self.b.fresh_symbol();
                    general.insert(b.clone());
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    /// Result types of the carried values: sizes that iterations change differ from those inside the region.
    fn loop_result_types(&mut self, parts: &LoopParts<'_>, carried: &[TensorType]) -> Vec<TensorType> {
        let initial: Vec<TensorType> = parts.carried.iter().map(|v| self.b.ty(*v).clone()).collect();
        let mut out = Vec::new();
        for (initial, general) in initial.iter().zip(carried) {
            let shape: Vec<Dim> = initial
                .shape
                .iter()
                .zip(&general.shape)
                .map(|(i, g)| if i == g { i.clone() } else { self.b.fresh_symbol() })
                .collect();
            out.push(TensorType::new(general.dtype, shape));
        }
        out
    }
}

/// Makes region values from region values.
type RegionStart<'a> = dyn Fn(&mut Importer<'_>, &[SrgValue]) -> Result<Vec<SrgValue>> + 'a;
/// Makes the region's results from its arguments and the graph's outputs.
type RegionFinish<'a> = dyn Fn(&mut Importer<'_>, &[SrgValue], Vec<SrgValue>) -> Result<Vec<SrgValue>> + 'a;

/// The parts of a loop around a graph. The region's arguments are (iteration, condition, carried…, invariant…).
pub(crate) struct LoopParts<'a> {
    /// Number of iterations, at most.
    pub(crate) trip_count: SrgValue,
    /// Shall the first iteration run?
    pub(crate) cond: SrgValue,
    /// First values of the loop-carried values.
    pub(crate) carried: &'a [SrgValue],
    /// Values that every iteration sees.
    pub(crate) invariant: &'a [SrgValue],
    /// Size of the scanned results' new axis.
    pub(crate) steps: Dim,
    /// From the region's arguments to the graph's inputs.
    pub(crate) start: &'a RegionStart<'a>,
    /// From the region's arguments and the graph's outputs to (condition, carried…, scanned…).
    pub(crate) finish: &'a RegionFinish<'a>,
}

/// The node as an `opaque` operation, if the file gives the types of its results; else the error.
fn opaque(n: &mut Node<'_, '_>, error: Box<Diagnostic>) -> Result<Outputs> {
    let has_graph = n.attrs.all().iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
    let types: Option<Vec<TensorType>> =
        n.proto.output.iter().map(|o| n.imp.hint(o).and_then(Hint::whole)).collect();
    let Some(types) = types.filter(|t| !has_graph && !t.is_empty()) else { return Err(error) };
    let domain = domain(&n.proto.domain);
    let op =
        if domain.is_empty() { n.proto.op_type.clone() } else { format!("{domain}.{}", n.proto.op_type) };
    let present: String = n.inputs.iter().map(|v| if v.is_some() { '1' } else { '0' }).collect();
    let payload = format!("version={};operands={present};{}", n.version, n.attrs.payload());
    let operands: Vec<SrgValue> = n.inputs.iter().flatten().copied().collect();
    let a = attrs! { op: op, payload: payload, types: types };
    let out = n.imp.b.op_with_regions(OpKind::Opaque, &operands, a, Vec::new())?;
    let key = (domain, n.proto.op_type.clone(), n.version);
    *n.imp.report.opaque.entry(key).or_default() += 1;
    Ok(out.into_iter().map(Some).collect())
}

/// Adds advice to a violated constraint of the op table, which comes without.
fn with_help(mut e: Box<Diagnostic>) -> Box<Diagnostic> {
    if e.culprit == Culprit::Input && e.help.is_none() {
        e.help = Some(
            "the node breaks a rule of its operator; check the model with onnx.checker and shape inference, or \
             export it again"
                .into(),
        );
    }
    e
}

fn undefined(name: &str) -> Box<Diagnostic> {
    input("onnx.undefined", format!("the value '{name}' is not defined"))
        .help("the file is damaged or was cut out of a larger model; export the model again")
}
