//! From the program JSON to the SRG: signature, symbols, the walk over the nodes, and the results.

use crate::archive::{Archive, Shared};
use crate::context::{Binding, Call, Cx, Env, Lifted, Ret, Scalar};
use crate::env::{RootOrigin, SlotId};
use crate::schema::{
    Argument, BoolOrName, FloatOrName, Graph, InputSpec, IntOrName, Name, Node, OptionalTensor, OutputSpec,
    Program, RangeConstraint, VersionOnly,
};
use crate::weights::Payloads;
use crate::{ImportReport, Imported, ops, sympy};
use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::{Dim, OpKind, Symbol, SymbolInfo, SymbolTable, TensorType, attrs};
use djinn_srg::{Origin, SrgBuilder, SrgValue};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The schema version that this importer reads.
const SCHEMA_MAJOR: i64 = 8;

/// Graphs inside graphs (branches and loop bodies), at most; a loop translates its condition twice.
const MAX_NESTING: usize = 8;

/// Imports an archive.
pub(crate) fn from_archive(bytes: Shared) -> Result<Imported> {
    let archive = Archive::open(bytes)?;
    let member = program_member(&archive)?;
    let root = member.trim_end_matches("models/model.json").to_string();
    if let Some(order) = archive.text(&format!("{root}byteorder"))?
        && order.as_slice() != b"little"
    {
        return Err(unsupported("pt2.byteorder", "the weights are not little-endian")
            .help("export the model on a little-endian machine"));
    }
    let text = archive.text(&member)?.ok_or_else(no_program)?;
    let payloads = Payloads::open(archive, &root)?;
    from_program(text.as_slice(), &payloads).at(|| member)
}

fn no_program() -> Box<djinn_diag::Diagnostic> {
    input("pt2.archive", "the archive holds no models/model.json")
        .help("save the program with torch.export.save of torch 2.9 or later")
}

fn program_member(archive: &Archive) -> Result<String> {
    let is_program = |n: &&str| *n == "models/model.json" || n.ends_with("/models/model.json");
    let mut found = archive.names().filter(is_program);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.to_string()),
        (Some(_), Some(_)) => Err(input("pt2.archive", "the archive holds several models/model.json")
            .help("save one program per archive")),
        (None, _) if archive.names().any(|n| n.ends_with("serialized_exported_program.json")) => {
            Err(unsupported("pt2.schema", "the archive has the layout of torch before 2.9")
                .help("save the program again with torch 2.9 or later"))
        }
        (None, _) => Err(no_program()),
    }
}

/// Imports a program JSON with these payloads.
pub(crate) fn from_program(json: &[u8], payloads: &Payloads) -> Result<Imported> {
    let malformed = |e: serde_json::Error| {
        let what = if e.to_string().contains("recursion limit") {
            "the program JSON is nested too deeply".to_owned()
        } else {
            djinn_diag::clipped(&format!("the program JSON is malformed: {e}"), 140, 60)
        };
        input("pt2.json", what)
            .help("the file is damaged or not a program of torch.export: export the model again")
    };
    let version: VersionOnly = serde_json::from_slice(json).map_err(|e| {
        if e.is_data() {
            let reason = djinn_diag::clipped(&e.to_string(), 120, 0);
            input("pt2.json", format!("this JSON is not a program of torch.export ({reason})"))
                .help("djinn-opt reads .pt2, .onnx, SRG JSON and IR text; export the model again")
        } else {
            malformed(e)
        }
    })?;
    let (major, minor) = (version.schema_version.major, version.schema_version.minor);
    if major != SCHEMA_MAJOR {
        return Err(unsupported(
            "pt2.schema",
            format!("the program has schema version {major}.{minor}, not 8"),
        )
        .help("save the program again with torch 2.9 or later"));
    }
    let program: Program = serde_json::from_slice(json).map_err(malformed)?;
    // Which lifted values the program writes is known only at the end of the walk; these then become state, and
    // the walk is repeated. A second walk writes nothing new, since states and weights behave alike in it.
    let mut states: BTreeSet<String> = listed_mutations(&program).into_iter().collect();
    loop {
        match Import::run(&program, payloads, &states)? {
            Outcome::Done(imported) => return Ok(*imported),
            Outcome::NewStates(new) => states.extend(new),
        }
    }
}

/// Buffers and parameters whose mutation the signature lists (decomposed dialect).
fn listed_mutations(program: &Program) -> Vec<String> {
    let specs = program.graph_module.signature.output_specs.iter();
    specs
        .filter_map(|s| match s {
            OutputSpec::BufferMutation { buffer_name: n, .. }
            | OutputSpec::ParameterMutation { parameter_name: n, .. } => Some(n.clone()),
            _ => None,
        })
        .collect()
}

enum Outcome {
    Done(Box<Imported>),
    NewStates(Vec<String>),
}

/// One walk over the program.
struct Import<'p> {
    cx: Cx<'p>,
    program: &'p Program,
    /// Argument number by name of the graph input, for inputs and states.
    arguments: HashMap<&'p str, u32>,
    /// Argument number by fully qualified name, for states.
    states: BTreeMap<&'p str, u32>,
    lifted_names: BTreeSet<&'p str>,
    next_argument: u32,
}

impl<'p> Import<'p> {
    fn run(program: &'p Program, payloads: &'p Payloads, states: &BTreeSet<String>) -> Result<Outcome> {
        let graph = &program.graph_module.graph;
        let cx = Cx {
            b: SrgBuilder::new("forward"),
            envs: vec![Env::new(graph)],
            lifted: Vec::new(),
            payloads,
            report: ImportReport::default(),
            exprs: HashMap::new(),
            symbols: SymbolTable::default(),
            scopes: BTreeMap::new(),
        };
        let mut import = Import {
            cx,
            program,
            arguments: HashMap::new(),
            states: BTreeMap::new(),
            lifted_names: BTreeSet::new(),
            next_argument: 0,
        };
        import.facts()?;
        import.inputs(states)?;
        import.guards()?;
        import.cx.walk_nodes(graph)?;
        let new = import.new_states();
        if !new.is_empty() {
            return Ok(Outcome::NewStates(new));
        }
        import.outputs()?;
        let Import { cx, .. } = import;
        Ok(Outcome::Done(Box::new(Imported { report: cx.report, srg: cx.b.finish()? })))
    }

    fn facts(&mut self) -> Result<()> {
        let p = self.program;
        let version = format!("{}.{}", p.schema_version.major, p.schema_version.minor);
        self.cx.b.metadata("source_format", "pt2");
        self.cx.b.metadata("torch_version", &p.torch_version);
        self.cx.b.metadata("schema_version", &version);
        self.cx.b.metadata("dialect", &p.verifiers.join(","));
        for (name, range) in &p.range_constraints {
            let bound = |v: &Option<serde_json::Value>| v.as_ref().and_then(serde_json::Value::as_i64);
            if let (Some(min), Some(max)) = (bound(&range.min_val), bound(&range.max_val))
                && min > max
            {
                return Err(input(
                    "pt2.range",
                    format!("the size '{name}' is at least {min} and at most {max}"),
                )
                .help("the file contradicts itself: export the model again"));
            }
            self.cx.symbols.0.insert(Symbol::new(name), symbol_info(range));
            self.cx.b.declare_symbol(name, symbol_info(range));
        }
        Ok(())
    }

    /// Divisibility of sizes, from the guards that have a simple form.
    fn guards(&mut self) -> Result<()> {
        for guard in self.program.guards_code.iter().filter_map(|g| sympy::divisibility(g)) {
            let Some(ty) = self.cx.recorded(&guard.input)? else { continue };
            let Some(symbol) = ty.shape.get(guard.axis).and_then(Dim::as_symbol).map(Symbol::name) else {
                continue;
            };
            let range = self.program.range_constraints.get(symbol);
            let info = range.map_or_else(SymbolInfo::default, symbol_info);
            self.cx.b.declare_symbol(symbol, SymbolInfo { divisor: guard.divisor, ..info });
        }
        Ok(())
    }

    // ---- inputs

    fn inputs(&mut self, states: &BTreeSet<String>) -> Result<()> {
        for spec in &self.program.graph_module.signature.input_specs {
            match spec {
                InputSpec::UserInput { arg } => self.user_input(arg)?,
                InputSpec::ConstantInput { name, value } => {
                    if let Some(s) = self.cx.scalar_of(value)? {
                        self.cx.bind(name, Binding::Scalar(s))?;
                    }
                }
                _ => {}
            }
        }
        for spec in &self.program.graph_module.signature.input_specs {
            match spec {
                InputSpec::Parameter { arg, parameter_name } => {
                    self.lifted(arg, parameter_name, false, states)?
                }
                InputSpec::Buffer { arg, buffer_name } => self.lifted(arg, buffer_name, false, states)?,
                InputSpec::TensorConstant { arg, tensor_constant_name } => {
                    self.lifted(arg, tensor_constant_name, true, states)?;
                }
                InputSpec::CustomObj { custom_obj_name } => {
                    return Err(unsupported(
                        "pt2.input",
                        format!("'{custom_obj_name}' is a TorchScript object"),
                    )
                    .help("export a model whose state is tensors only"));
                }
                InputSpec::UserInput { .. } | InputSpec::ConstantInput { .. } | InputSpec::Token { .. } => {}
            }
        }
        Ok(())
    }

    fn input_type(&mut self, name: &str) -> Result<TensorType> {
        self.cx.recorded(name)?.ok_or_else(|| {
            input("pt2.input", format!("the input '{name}' has no recorded type"))
                .help("the file is damaged: export the model again")
        })
    }

    fn user_input(&mut self, arg: &'p Argument) -> Result<()> {
        match arg {
            Argument::Tensor(Name { name }) => {
                let ty = self.input_type(name)?;
                self.cx.b.set_origin(Origin { name: Arc::from(name.as_str()), ..Origin::default() });
                let value = self.cx.b.input(name, ty);
                self.argument(name, value)
            }
            Argument::SymInt(IntOrName::Name(n))
            | Argument::SymFloat(FloatOrName::Name(n))
            | Argument::SymBool(BoolOrName::Name(n)) => {
                Err(unsupported("pt2.input", format!("the input '{n}' is a dynamic number, not a tensor"))
                    .help("pass the number as a tensor, or export the model with a constant in its place"))
            }
            _ => Ok(()),
        }
    }

    fn argument(&mut self, name: &'p str, value: SrgValue) -> Result<()> {
        let number = self.next_argument;
        self.next_argument += 1;
        self.arguments.insert(name, number);
        let slot = self.cx.root_of(Some(value), RootOrigin::Argument(number));
        self.cx.bind(name, Binding::Tensor(slot))
    }

    fn lifted(
        &mut self,
        arg: &'p Name,
        fqn: &'p str,
        is_constant: bool,
        states: &BTreeSet<String>,
    ) -> Result<()> {
        let ty = self.input_type(&arg.name)?;
        if !self.lifted_names.insert(fqn) {
            return Err(input("pt2.name", format!("two inputs of the graph are the weight '{fqn}'"))
                .help("the file is damaged: export the model again"));
        }
        if states.contains(fqn) {
            let weight = self.cx.payloads.load(fqn, &ty)?;
            self.cx.b.declare_weight(fqn, weight)?;
            self.cx.b.set_origin(Origin { name: Arc::from(fqn), ..Origin::default() });
            let value = self.cx.b.state(fqn, ty, Some(fqn));
            self.states.insert(fqn, self.next_argument);
            return self.argument(&arg.name, value);
        }
        let number = self.cx.lifted.len();
        self.cx.lifted.push(Lifted { name: fqn.to_string(), ty, is_constant });
        self.cx.bind_lifted(&arg.name, number)
    }

    fn new_states(&self) -> Vec<String> {
        let written = self.cx.written_roots();
        written
            .into_iter()
            .filter_map(|(origin, _)| match origin {
                RootOrigin::Lifted(n) => self.cx.lifted.get(n).map(|l| l.name.clone()),
                RootOrigin::Computed | RootOrigin::Argument(_) | RootOrigin::Captured => None,
            })
            .collect()
    }

    // ---- outputs

    fn outputs(&mut self) -> Result<()> {
        let mut updates: BTreeMap<u32, SrgValue> = BTreeMap::new();
        for (origin, value) in self.cx.written_roots() {
            if let RootOrigin::Argument(n) = origin {
                updates.insert(n, value);
            }
        }
        self.cx.b.set_origin(Origin::default());
        let mut names = BTreeSet::new();
        for (i, spec) in self.program.graph_module.signature.output_specs.iter().enumerate() {
            match spec {
                OutputSpec::UserOutput { arg } => self.user_output(arg, i, &mut names)?,
                OutputSpec::LossOutput { arg } => {
                    let value = self.cx.value_named(&arg.name)?;
                    self.output(&arg.name, value, &mut names);
                }
                OutputSpec::BufferMutation { arg, buffer_name: target }
                | OutputSpec::ParameterMutation { arg, parameter_name: target } => {
                    let number = self.states.get(target.as_str()).copied();
                    self.listed_update(arg, target, number, &mut updates)?;
                }
                OutputSpec::UserInputMutation { arg, user_input_name } => {
                    let number = self.arguments.get(user_input_name.as_str()).copied();
                    self.listed_update(arg, user_input_name, number, &mut updates)?;
                }
                OutputSpec::GradientToParameter { arg } | OutputSpec::GradientToUserInput { arg } => {
                    return Err(unsupported(
                        "pt2.output",
                        format!("the output '{}' is a gradient", arg.name),
                    )
                    .help("export the forward pass only"));
                }
                OutputSpec::Token { .. } => {}
            }
        }
        for (number, value) in updates {
            self.cx.b.update(number, value);
        }
        Ok(())
    }

    fn listed_update(
        &mut self,
        arg: &Name,
        target: &str,
        number: Option<u32>,
        updates: &mut BTreeMap<u32, SrgValue>,
    ) -> Result<()> {
        let number = number.ok_or_else(|| {
            input("pt2.output", format!("the signature lists a mutation of '{target}', which is no input"))
                .help("the file is damaged: export the model again")
        })?;
        let value = self.cx.value_named(&arg.name)?;
        updates.insert(number, value);
        Ok(())
    }

    fn user_output(&mut self, arg: &'p Argument, i: usize, names: &mut BTreeSet<String>) -> Result<()> {
        let (name, value) = match arg {
            Argument::Tensor(n) | Argument::OptionalTensor(OptionalTensor::Tensor(n)) => {
                (n.name.clone(), self.cx.value_named(&n.name)?)
            }
            _ => match self.cx.scalar_of(arg)? {
                Some(Scalar::Int(d)) => (format!("output_{i}"), self.cx.b.dim(d)?),
                // Python constants in the output are not computed by the program.
                Some(Scalar::Float(_) | Scalar::Bool(_)) | None => return Ok(()),
            },
        };
        self.output(&name, value, names);
        Ok(())
    }

    fn output(&mut self, name: &str, value: SrgValue, names: &mut BTreeSet<String>) {
        let mut unique = name.to_string();
        let mut n = 1;
        while !names.insert(unique.clone()) {
            unique = format!("{name}_{n}");
            n += 1;
        }
        self.cx.b.output(&unique, value);
    }
}

/// Bounds beyond which torch means "unbounded".
const INT_OO: i64 = i64::MAX - 1;

fn symbol_info(range: &RangeConstraint) -> SymbolInfo {
    let bound = |v: &Option<serde_json::Value>| v.as_ref().and_then(serde_json::Value::as_i64);
    let min = bound(&range.min_val).unwrap_or(0).max(0);
    let max = bound(&range.max_val).filter(|m| *m < INT_OO).map(|m| m.max(min));
    SymbolInfo { min, max, divisor: 1 }
}

impl<'p> Env<'p> {
    /// The environment of a graph before any of its nodes.
    pub(crate) fn new(graph: &'p Graph) -> Self {
        let mut used = BTreeSet::new();
        let outputs = graph.outputs.iter();
        for arg in graph.nodes.iter().flat_map(|n| n.inputs.iter().map(|a| &a.arg)).chain(outputs) {
            match arg {
                Argument::Tensor(n) | Argument::OptionalTensor(OptionalTensor::Tensor(n)) => {
                    used.insert(n.name.as_str());
                }
                Argument::Tensors(list) => used.extend(list.iter().map(|n| n.name.as_str())),
                Argument::OptionalTensors(list) => used.extend(list.iter().filter_map(|t| match t {
                    OptionalTensor::Tensor(n) => Some(n.name.as_str()),
                    OptionalTensor::None(_) => None,
                })),
                _ => {}
            }
        }
        Env { graph, names: HashMap::new(), slots: Vec::new(), used }
    }
}

impl<'p> Cx<'p> {
    /// Translates every node of a graph in the current environment.
    pub(crate) fn walk_nodes(&mut self, graph: &'p Graph) -> Result<()> {
        for node in &graph.nodes {
            let origin = self.origin(node);
            self.b.set_origin(origin);
            self.node(node).at(|| format!("node '{}' ({})", node_name(node), node.target))?;
        }
        Ok(())
    }

    /// Translates a graph with these arguments into the current region; gives its results.
    pub(crate) fn inline(
        &mut self,
        graph: &'p Graph,
        args: &[SrgValue],
        origin: RootOrigin,
    ) -> Result<Vec<SrgValue>> {
        if graph.inputs.len() != args.len() {
            let message = format!("a graph takes {} inputs, but gets {}", graph.inputs.len(), args.len());
            return Err(input("pt2.graph", message).help("the file is damaged: export the model again"));
        }
        if self.envs.len() > MAX_NESTING {
            let message = format!("branches and loops are nested more than {MAX_NESTING} deep");
            return Err(unsupported("pt2.graph", message).help("flatten the control flow of the model"));
        }
        self.envs.push(Env::new(graph));
        let results = self.inline_in_env(graph, args, origin);
        self.envs.pop();
        results
    }

    fn inline_in_env(
        &mut self,
        graph: &'p Graph,
        args: &[SrgValue],
        origin: RootOrigin,
    ) -> Result<Vec<SrgValue>> {
        for (arg, value) in graph.inputs.iter().zip(args) {
            let Argument::Tensor(n) = arg else {
                return Err(unsupported(
                    "pt2.graph",
                    "a branch or loop body takes something that is not a tensor",
                )
                .help("pass tensors to torch.cond and while_loop"));
            };
            let slot = self.root_of(Some(*value), origin);
            self.bind(&n.name, Binding::Tensor(slot))?;
        }
        self.walk_nodes(graph)?;
        let mut results = Vec::new();
        for out in &graph.outputs {
            let Argument::Tensor(n) = out else {
                return Err(unsupported(
                    "pt2.graph",
                    "a branch or loop body gives something that is not a tensor",
                )
                .help("return tensors from torch.cond and while_loop"));
            };
            results.push(self.value_named(&n.name)?);
        }
        Ok(results)
    }

    fn node(&mut self, node: &'p Node) -> Result<()> {
        let (base, overload) = split_target(&node.target);
        let call = Call { node, base, overload };
        if ops::is_dropped(base) {
            return Ok(());
        }
        if let Some(handler) = ops::find(base) {
            let is_out = overload == "out" || overload.ends_with("_out");
            let ret = handler(self, &call)?;
            return if is_out { self.write_result(&call, "out", ret) } else { self.bind_results(&call, ret) };
        }
        if let Some(pure) = in_place_base(base)
            && let Some(handler) = ops::find(&pure)
        {
            let ret = handler(self, &call)?;
            return self.write_result(&call, self_argument(&call), ret);
        }
        if is_in_place(base) {
            return Err(unsupported("pt2.operator", format!("the in-place operator {base} is not known"))
                .help("use its out-of-place form in the model, or ask for support with the model file"));
        }
        let ret = opaque(self, &call)?;
        self.bind_results(&call, ret)
    }

    /// Writes what a call computed to its destination, and binds the call's results to the destination.
    fn write_result(&mut self, call: &Call<'p>, destination: &str, ret: Ret) -> Result<()> {
        let slot = self.slot(call, destination)?;
        match ret {
            Ret::Value(v) => self.write(slot, v)?,
            Ret::Slot(other) if other == slot => {}
            Ret::Slot(other) => {
                let (v, old) = (self.read(other)?, self.read(slot)?);
                if self.b.ty(v).shape != self.b.ty(old).shape {
                    return Err(call.unsupported("changes the shape of a tensor in place"));
                }
                self.write(slot, v)?;
            }
            Ret::Values(_) | Ret::Slots(_) | Ret::Scalar(_) => {
                return Err(call.unsupported("has several results in place"));
            }
        }
        self.bind_results(call, Ret::Slot(slot))
    }

    fn bind_results(&mut self, call: &Call<'p>, ret: Ret) -> Result<()> {
        let names = self.output_names(call);
        let slots: Vec<Option<SlotId>> = match ret {
            Ret::Scalar(s) => return self.bind_scalar(call, s),
            Ret::Value(v) => vec![Some(self.root(v))],
            Ret::Values(list) => list.into_iter().map(|v| v.map(|v| self.root(v))).collect(),
            Ret::Slot(s) => vec![Some(s)],
            Ret::Slots(list) => list.into_iter().map(Some).collect(),
        };
        if names.len() > slots.len() {
            let message =
                format!("{} gives {} results, but the node names {}", call.base, slots.len(), names.len());
            return Err(input("pt2.results", message).help("the file is damaged: export the model again"));
        }
        for (name, slot) in names.into_iter().zip(slots) {
            match slot {
                Some(slot) => {
                    self.bind(name, Binding::Tensor(slot))?;
                    self.check_type(name, slot)?;
                }
                None if self.env().used.contains(name) => {
                    return Err(call.unsupported(format!("its result '{name}' is not computed")));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn bind_scalar(&mut self, call: &Call<'p>, s: Scalar) -> Result<()> {
        for out in &call.node.outputs {
            match out {
                Argument::SymInt(IntOrName::Name(n))
                | Argument::SymFloat(FloatOrName::Name(n))
                | Argument::SymBool(BoolOrName::Name(n)) => self.bind(n, Binding::Scalar(s.clone()))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Compares the inferred type of a result with the recorded one.
    fn check_type(&mut self, name: &str, slot: SlotId) -> Result<()> {
        let Some(recorded) = self.recorded(name)? else { return Ok(()) };
        let value = self.read(slot)?;
        let inferred = self.b.ty(value);
        let equal = inferred.dtype == recorded.dtype
            && inferred.rank() == recorded.rank()
            && inferred.shape.iter().zip(&recorded.shape).all(|(a, b)| (a - b).is(0));
        self.report.type_checks += 1;
        if !equal {
            let line = format!("{name}: recorded {recorded}, inferred {inferred}");
            self.report.type_disagreements.push(line);
        }
        Ok(())
    }

    fn origin(&mut self, node: &Node) -> Origin {
        let op = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
        let scope = node.metadata.nn_module_stack.as_deref().and_then(innermost_module).map(|path| {
            let known = self.scopes.entry(path.to_string()).or_insert_with(|| Arc::from(path));
            Arc::clone(known)
        });
        let source = node.metadata.stack_trace.as_deref().and_then(model_line).map(|(file, line)| {
            let known = self.scopes.entry(file.to_string()).or_insert_with(|| Arc::from(file));
            (Arc::clone(known), line)
        });
        Origin { framework_op: Arc::from(op), name: Arc::from(node_name(node)), scope, source }
    }
}

fn node_name(node: &Node) -> &str {
    let first = || {
        node.outputs.iter().find_map(|o| match o {
            Argument::Tensor(n) => Some(n.name.as_str()),
            Argument::Tensors(list) => list.first().map(|n| n.name.as_str()),
            Argument::SymInt(IntOrName::Name(n)) => Some(n.as_str()),
            _ => None,
        })
    };
    node.name.as_deref().or_else(first).unwrap_or("?")
}

/// Operator and overload of a target. Operators of torch's own library go by their bare name (`add`, `Tensor`),
/// all others by their full one (`_operator.mul`, `higher_order.cond`).
fn split_target(target: &str) -> (&str, &str) {
    let name = target.strip_prefix("torch.ops.").unwrap_or(target);
    match name.strip_prefix("aten.").or_else(|| name.strip_prefix("prims.")) {
        Some(op) => op.split_once('.').unwrap_or((op, "")),
        None => (name, ""),
    }
}

/// Is this an operator of a custom library that by its name writes to its operands?
fn is_in_place(base: &str) -> bool {
    let op = base.split('.').nth(1).unwrap_or(base);
    op.ends_with('_') && !op.ends_with("__")
}

/// The pure operator behind an in-place one: `add_` → `add`, `__iand__` → `__and__`.
fn in_place_base(base: &str) -> Option<String> {
    if let Some(inner) = base.strip_prefix("__i").filter(|r| r.ends_with("__")) {
        return Some(format!("__{inner}"));
    }
    let trimmed = base.strip_suffix('_').filter(|b| !b.ends_with('_') && !b.is_empty())?;
    Some(trimmed.to_string())
}

/// Name of the argument that an in-place operator writes to.
fn self_argument(call: &Call<'_>) -> &'static str {
    if call.arg("self").is_some() { "self" } else { "input" }
}

/// The innermost module path of an `nn_module_stack`: entries `key,path,type` joined by `;`.
fn innermost_module(stack: &str) -> Option<&str> {
    let path = stack.rsplit(';').find_map(|entry| entry.split(',').nth(1))?;
    (!path.is_empty() && !path.starts_with("_empty")).then_some(path)
}

/// File and line of the last frame of a stack trace that is in a file outside torch itself.
fn model_line(trace: &str) -> Option<(&str, u32)> {
    let is_torch = |file: &str| file.starts_with("torch/") || file.contains("-packages/torch/");
    trace.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |n| &rest[..n]);
        (!file.starts_with('<') && !is_torch(file)).then_some(())?;
        Some((file, digits.parse().ok()?))
    })
}

/// An operation that Djinn does not know, with its attributes as JSON and the recorded result types.
pub(crate) fn opaque<'p>(cx: &mut Cx<'p>, call: &Call<'p>) -> Result<Ret> {
    let mut operands = Vec::new();
    for input in &call.node.inputs {
        match &input.arg {
            Argument::Tensor(n) | Argument::OptionalTensor(OptionalTensor::Tensor(n)) => {
                operands.push(cx.value_named(&n.name)?);
            }
            Argument::Tensors(list) => {
                for n in list {
                    operands.push(cx.value_named(&n.name)?);
                }
            }
            Argument::OptionalTensors(list) => {
                for t in list {
                    if let OptionalTensor::Tensor(n) = t {
                        operands.push(cx.value_named(&n.name)?);
                    }
                }
            }
            _ => {}
        }
    }
    let mut types = Vec::new();
    for name in cx.output_names(call) {
        types.push(cx.recorded(name)?.ok_or_else(|| {
            input("pt2.type", format!("the result '{name}' has no recorded type"))
                .help("the file is damaged: export the model again")
        })?);
    }
    if types.is_empty() {
        return Err(call.unsupported("an unknown operator without tensor results"));
    }
    let payload = serde_json::to_string(&call.node.inputs).unwrap_or_default();
    let target = call.node.target.strip_prefix("torch.ops.").unwrap_or(&call.node.target);
    *cx.report.opaque.entry(target.to_string()).or_insert(0) += 1;
    let attrs = attrs! { op: target, payload: payload, types: types };
    let values = cx.b.op_with_regions(OpKind::Opaque, &operands, attrs, Vec::new())?;
    Ok(Ret::Values(values.into_iter().map(Some).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_split() {
        assert_eq!(split_target("torch.ops.aten.add.Tensor"), ("add", "Tensor"));
        assert_eq!(split_target("_operator.mul"), ("_operator.mul", ""));
        assert_eq!(split_target("torch.ops.higher_order.cond"), ("higher_order.cond", ""));
        assert_eq!(split_target("torch.ops.mylib.add.default"), ("mylib.add.default", ""));
        assert!(is_in_place("mylib.add_.default") && is_in_place("add_") && !is_in_place("__and__"));
    }

    #[test]
    fn in_place_names() {
        assert_eq!(in_place_base("add_").as_deref(), Some("add"));
        assert_eq!(in_place_base("__iand__").as_deref(), Some("__and__"));
        assert_eq!(in_place_base("__and__"), None);
        assert_eq!(in_place_base("add"), None);
    }

    #[test]
    fn origins() {
        assert_eq!(innermost_module("L__self__,,lm.D;L__self___lm,lm.model,x.Y"), Some("lm.model"));
        assert_eq!(innermost_module("L__self__,,lm.D"), None);
        let trace = "File \"a.py\", line 3, in f\n    x\n  File \"b.py\", line 12, in g\n    y\n  File \"<eval>\", line 1";
        assert_eq!(model_line(trace), Some(("b.py", 12)));
        assert_eq!(model_line("garbage"), None);
        assert_eq!(model_line("File \"/lib/site-packages/torch/nn/linear.py\", line 3, in f"), None);
    }
}
