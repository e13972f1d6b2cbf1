//! What one engine holds, cut out of its program.
//!
//! Operations are listed in an order that depends on the structure alone: outputs by how they are computed, then depth
//! first. Arguments are numbered as they are met, inputs before constants. So regions of equal layers are equal modules.

use crate::sizes::linear;
use djinn_diag::{Result, internal};
use djinn_ir::{
    ArgumentKind, ContentHash, DType, Dim, Function, Graph, Location, Module, OpId, OpKind, ResultKind,
    Symbol, SymbolInfo, TensorType, ValueId, Visibility, program_hash, walk,
};
use djinn_plan::{Engine, Entry, KernelId, SymbolRange, ValueRef};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Literals of at most this many elements stay inside an engine: scalars, bounds, small tables.
const INLINE_ELEMENTS: usize = 16;

/// Name of the one function of a region's module.
pub(crate) const FUNCTION: &str = "region";

/// Where an argument of a region comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentSource {
    /// A value that is made in the run.
    Input(ValueRef),
    /// A weight, or what is computed from weights before the first run.
    Constant(ValueRef),
    /// No value: the symbol at this number of [`Region::symbols`], as the length of a vector whose elements nobody reads. For
    /// sizes that no other argument's shape gives.
    Size(u32),
}

impl ArgumentSource {
    /// The value of the entry function; `None` for a size.
    pub fn value(self) -> Option<ValueRef> {
        match self {
            ArgumentSource::Input(v) | ArgumentSource::Constant(v) => Some(v),
            ArgumentSource::Size(_) => None,
        }
    }
}

/// An argument of a region: `i0`, `i1`, … for inputs, `w0`, `w1`, … for constants, `n0`, `n1`, … for sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name, also in the engine.
    pub name: Arc<str>,
    /// What is bound to it.
    pub source: ArgumentSource,
}

/// A symbol of a region and the sizes that the engine is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolBinding {
    /// Name in the region's module.
    pub name: String,
    /// Name in the entry.
    pub symbol: String,
    /// Smallest size: at least 1, engines do not run on empty tensors.
    pub min: i64,
    /// Largest size.
    pub max: i64,
}

/// A self-contained piece of an entry: one function of one module.
#[derive(Debug, Clone)]
pub struct Region {
    /// The module; its function is called `region`, its results `o0`, `o1`, ….
    pub module: Module,
    /// What is bound to each argument, in order.
    pub arguments: Vec<Argument>,
    /// The value of the entry that each result is.
    pub results: Vec<ValueRef>,
    /// Symbols, in the order in which they are met.
    pub symbols: Vec<SymbolBinding>,
    /// Kernels of the entry that it stands for.
    pub kernels: Vec<KernelId>,
    /// Multiply-accumulate work of these kernels, FLOP.
    pub flops: f64,
    /// Phase of the entry.
    pub phase: Option<String>,
    /// Position in the entry function, and module path, of every operation.
    pub(crate) origins: Vec<(u32, Option<Arc<str>>)>,
}

impl Region {
    /// Everything that an engine of the plan may hold.
    ///
    /// # Errors
    /// If the entry is none of this program.
    pub fn of_engine(program: &Module, entry: &Entry, engine: &Engine) -> Result<Region> {
        Region::of_kernels(program, entry, engine, &engine.kernels)
    }

    /// Some kernels of an engine, and the views of what they make.
    ///
    /// # Errors
    /// If the entry is none of this program.
    pub fn of_kernels(
        program: &Module,
        entry: &Entry,
        engine: &Engine,
        kernels: &[KernelId],
    ) -> Result<Region> {
        let function = program.function(&entry.function);
        let function = function.ok_or_else(|| {
            internal("tensorrt.region", format!("the program has no function '{}'", entry.function))
        })?;
        let source = Source::new(function, entry);
        let ops = source.members(entry, engine, kernels)?;
        let outputs = source.outputs(engine, &ops);
        let mut flops = 0.0;
        for kernel in kernels {
            flops += entry.kernels.get(kernel.index()).map_or(0.0, |k| k.flops);
        }
        let mut region = Cut::new(&source, &ops).cut(&outputs)?;
        region.kernels = kernels.to_vec();
        region.flops = flops;
        region.phase = entry.phase.clone();
        Ok(region)
    }

    /// A whole function whose sizes are bounded by the module's symbol table; its arguments are inputs.
    ///
    /// # Errors
    /// `tensorrt.region` for a size without a largest value.
    pub fn of_function(program: &Module, name: &str) -> Result<Region> {
        let function = program.function(name);
        let function = function
            .ok_or_else(|| internal("tensorrt.region", format!("the program has no function '{name}'")))?;
        let mut entry = Entry::empty(name);
        for symbol in walk::symbols(program) {
            let info = program.symbols.info(&symbol);
            let max = info.max.ok_or_else(|| {
                djinn_diag::input("tensorrt.region", format!("nothing bounds the size {}", symbol.name()))
            })?;
            entry.symbols.push(SymbolRange { name: symbol.name().into(), min: info.min, max });
        }
        let source = Source::new(function, &entry);
        let ops: BTreeSet<u32> = (0..source.ids.len() as u32).filter(|n| !source.is_weight(*n)).collect();
        Cut::new(&source, &ops).cut(&function.graph.results)
    }

    /// The function.
    pub fn function(&self) -> &Function {
        &self.module.functions[0]
    }

    /// Its body.
    pub fn graph(&self) -> &Graph {
        &self.function().graph
    }

    /// The operation of the entry function, by position, that an operation of the region stands for.
    pub fn origin(&self, operation: usize) -> Option<u32> {
        self.origins.get(operation).map(|(position, _)| *position)
    }

    /// How many operations its body has.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Has it no operation?
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Equal for regions that one engine serves.
    pub fn key(&self) -> ContentHash {
        program_hash(&self.module)
    }
}

/// The entry function by positions of operations.
struct Source<'a> {
    function: &'a Function,
    ids: Vec<OpId>,
    position: BTreeMap<OpId, u32>,
    known: Vec<bool>,
    /// Sizes that the entry fixes or bounds.
    ranges: BTreeMap<&'a str, (i64, i64)>,
}

impl<'a> Source<'a> {
    fn new(function: &'a Function, entry: &'a Entry) -> Source<'a> {
        let ids: Vec<OpId> = function.graph.ops().map(|(id, _)| id).collect();
        let position = (0..).zip(&ids).map(|(n, id)| (*id, n)).collect();
        let ranges = entry.symbols.iter().map(|s| (s.name.as_str(), (s.min, s.max))).collect();
        Source { function, ids, position, known: walk::known_before_runs(function), ranges }
    }

    fn graph(&self) -> &'a Graph {
        &self.function.graph
    }

    fn is_weight(&self, position: u32) -> bool {
        self.op(position).is_ok_and(|op| op.kind == OpKind::Weight)
    }

    fn maker(&self, value: ValueId) -> Option<u32> {
        let (op, _) = self.graph().definition(value)?;
        self.position.get(&op).copied()
    }

    fn reference(&self, value: ValueId) -> ValueRef {
        match self.graph().definition(value) {
            Some((op, index)) => {
                ValueRef::Result { op: self.position.get(&op).copied().unwrap_or(0), index: index as u32 }
            }
            None => {
                let number = self.graph().arguments.iter().position(|v| *v == value);
                ValueRef::Argument(number.unwrap_or(0) as u32)
            }
        }
    }

    /// Operations of the kernels, and views of the engine that are complete with the last of these kernels.
    fn members(&self, entry: &Entry, engine: &Engine, kernels: &[KernelId]) -> Result<BTreeSet<u32>> {
        let mut owner: BTreeMap<u32, KernelId> = BTreeMap::new();
        for id in &engine.kernels {
            let kernel = entry.kernels.get(id.index());
            let kernel =
                kernel.ok_or_else(|| internal("tensorrt.region", format!("there is no kernel {}", id.0)))?;
            owner.extend(kernel.ops.iter().map(|op| (*op, *id)));
        }
        for op in &engine.ops {
            let makers = self.op(*op)?.operands.iter().filter_map(|v| owner.get(&self.maker(*v)?).copied());
            if let Some(last) = makers.max() {
                owner.entry(*op).or_insert(last);
            }
        }
        let chosen: BTreeSet<KernelId> = kernels.iter().copied().collect();
        Ok(owner.into_iter().filter(|(_, k)| chosen.contains(k)).map(|(op, _)| op).collect())
    }

    fn op(&self, position: u32) -> Result<&'a djinn_ir::Op> {
        let op = self.ids.get(position as usize).and_then(|id| self.graph().get_op(*id));
        op.ok_or_else(|| internal("tensorrt.region", format!("there is no operation {position}")))
    }

    /// Results of members that the engine hands out or that others use.
    fn outputs(&self, engine: &Engine, ops: &BTreeSet<u32>) -> Vec<ValueId> {
        let all: BTreeSet<u32> = engine.ops.iter().copied().collect();
        let mut outputs = BTreeSet::new();
        for reference in &engine.outputs {
            if let ValueRef::Result { op, index } = reference
                && ops.contains(op)
                && let Ok(op) = self.op(*op)
            {
                outputs.extend(op.results.get(*index as usize));
            }
        }
        // What other parts of the same engine use.
        for position in all.difference(ops) {
            let Ok(op) = self.op(*position) else { continue };
            outputs.extend(op.operands.iter().filter(|v| self.maker(**v).is_some_and(|m| ops.contains(&m))));
        }
        outputs.into_iter().collect()
    }

    /// A fixed size, if the entry admits only one.
    fn fixed(&self, symbol: &Symbol) -> Option<Dim> {
        self.ranges.get(symbol.name()).filter(|(min, max)| min == max).map(|(min, _)| Dim::from(*min))
    }

    fn type_of(&self, value: ValueId) -> TensorType {
        let ty = self.graph().ty(value);
        let fixed = |s: &Symbol| self.fixed(s);
        TensorType::new(ty.dtype, ty.shape.iter().map(|d| d.substitute(&fixed)))
    }
}

/// What an operand is, seen from the region.
enum Operand {
    Inside(u32),
    Outside(ArgumentSource),
}

struct Cut<'a> {
    source: &'a Source<'a>,
    ops: &'a BTreeSet<u32>,
    order: Vec<u32>,
    placed: BTreeSet<u32>,
    inputs: Vec<ValueId>,
    constants: Vec<ValueId>,
    met: BTreeSet<ValueId>,
}

impl<'a> Cut<'a> {
    fn new(source: &'a Source<'a>, ops: &'a BTreeSet<u32>) -> Cut<'a> {
        let (order, placed, met) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Cut { source, ops, order, placed, inputs: Vec::new(), constants: Vec::new(), met }
    }

    fn operand(&self, value: ValueId) -> Operand {
        let reference = self.source.reference(value);
        let Some(maker) = self.source.maker(value) else {
            return Operand::Outside(ArgumentSource::Input(reference));
        };
        if self.ops.contains(&maker) || self.is_inlined(maker) {
            return Operand::Inside(maker);
        }
        let known = self.source.known.get(value.0 as usize).copied().unwrap_or(false);
        Operand::Outside(if known {
            ArgumentSource::Constant(reference)
        } else {
            ArgumentSource::Input(reference)
        })
    }

    /// Sources that cost nothing are made where they are needed.
    fn is_inlined(&self, position: u32) -> bool {
        let Ok(op) = self.source.op(position) else { return false };
        match op.kind {
            OpKind::DimExpr | OpKind::Iota => true,
            OpKind::Constant => op.attrs.tensor("value").is_some_and(|t| t.numel() <= INLINE_ELEMENTS),
            _ => false,
        }
    }

    /// A number that says how each value is computed, whatever comes from outside.
    fn structure(&self) -> Result<BTreeMap<ValueId, u64>> {
        let mut hashes: BTreeMap<ValueId, u64> = BTreeMap::new();
        for position in self.ops {
            let op = self.source.op(*position)?;
            let mut hasher = DefaultHasher::new();
            (op.kind, &op.attrs).hash(&mut hasher);
            for operand in &op.operands {
                match hashes.get(operand) {
                    Some(hash) => hash.hash(&mut hasher),
                    None => {
                        (self.source.graph().ty(*operand), self.inlined_literal(*operand)).hash(&mut hasher)
                    }
                }
            }
            for (number, result) in op.results.iter().enumerate() {
                let mut hasher = hasher.clone();
                number.hash(&mut hasher);
                hashes.insert(*result, hasher.finish());
            }
        }
        Ok(hashes)
    }

    fn inlined_literal(&self, value: ValueId) -> Option<&djinn_ir::Attrs> {
        let maker = self.source.maker(value).filter(|m| self.is_inlined(*m))?;
        Some(&self.source.op(maker).ok()?.attrs)
    }

    fn cut(mut self, outputs: &[ValueId]) -> Result<Region> {
        let hashes = self.structure()?;
        let mut outputs = outputs.to_vec();
        outputs.sort_by_key(|v| (hashes.get(v).copied(), *v));
        for output in &outputs {
            self.visit(*output)?;
        }
        let draft = self.draft(&outputs)?;
        Ok(rename(draft))
    }

    /// Depth first, operands before users.
    fn visit(&mut self, value: ValueId) -> Result<()> {
        let mut stack = vec![(value, false)];
        while let Some((value, done)) = stack.pop() {
            match self.operand(value) {
                Operand::Outside(source) => {
                    if self.met.insert(value) {
                        match source {
                            ArgumentSource::Input(_) => self.inputs.push(value),
                            _ => self.constants.push(value),
                        }
                    }
                }
                Operand::Inside(position) if self.placed.contains(&position) => {}
                Operand::Inside(position) if done => {
                    self.placed.insert(position);
                    self.order.push(position);
                }
                Operand::Inside(position) => {
                    stack.push((value, true));
                    let operands = &self.source.op(position)?.operands;
                    stack.extend(operands.iter().rev().map(|v| (*v, false)));
                }
            }
        }
        Ok(())
    }

    fn draft(&self, outputs: &[ValueId]) -> Result<Region> {
        let source = self.source;
        let mut graph = Graph::new();
        let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let (mut arguments, mut named) = (Vec::new(), Vec::new());
        for (letter, values) in [("i", &self.inputs), ("w", &self.constants)] {
            for (number, value) in values.iter().enumerate() {
                map.insert(*value, graph.add_argument(source.type_of(*value)));
                let name: Arc<str> = format!("{letter}{number}").into();
                named.push((name.clone(), ArgumentKind::Input));
                let reference = source.reference(*value);
                let source = match letter {
                    "i" => ArgumentSource::Input(reference),
                    _ => ArgumentSource::Constant(reference),
                };
                arguments.push(Argument { name, source });
            }
        }
        let mut origins = Vec::new();
        for position in &self.order {
            let op = source.op(*position)?;
            let operands = op.operands.iter().filter_map(|v| map.get(v).copied()).collect();
            let types = op.results.iter().map(|r| source.type_of(*r)).collect();
            let attrs = op.attrs.map(&|a| fix(a, source));
            let new = graph.push(op.kind, operands, attrs, Vec::new(), types, Location::default());
            map.extend(op.results.iter().copied().zip(graph.op(new).results.clone()));
            origins.push((*position, op.location.scope.clone()));
        }
        graph.results = outputs.iter().filter_map(|v| map.get(v).copied()).collect();
        let results =
            (0..graph.results.len()).map(|n| (format!("o{n}").into(), ResultKind::Output)).collect();
        let function = Function {
            name: FUNCTION.into(),
            visibility: Visibility::Entry,
            graph,
            arguments: named,
            results,
        };
        let module = Module { functions: vec![function], ..Module::default() };
        let mut region = Region {
            module,
            arguments,
            results: outputs.iter().map(|v| source.reference(*v)).collect(),
            symbols: Vec::new(),
            kernels: Vec::new(),
            flops: 0.0,
            phase: None,
            origins,
        };
        region.symbols = bindings(&region, source)?;
        add_sizes(&mut region);
        Ok(region)
    }
}

/// Adds an argument for every symbol that no argument's shape gives.
fn add_sizes(region: &mut Region) {
    let graph = region.graph();
    let shapes = graph.arguments.iter().flat_map(|a| &graph.ty(*a).shape);
    let given: BTreeSet<String> = shapes.filter_map(|d| Some(linear(d)?.0.name().to_owned())).collect();
    let missing: Vec<(u32, String)> = (0..)
        .zip(&region.symbols)
        .filter(|(_, s)| !given.contains(&s.symbol))
        .map(|(number, s)| (number, s.symbol.clone()))
        .collect();
    for (number, symbol) in missing {
        let function = &mut region.module.functions[0];
        let ty = TensorType::new(DType::Bool, [Dim::symbol(&symbol)]);
        function.graph.add_argument(ty);
        let name: Arc<str> = format!("n{number}").into();
        function.arguments.push((name.clone(), ArgumentKind::Input));
        region.arguments.push(Argument { name, source: ArgumentSource::Size(number) });
    }
}

/// An attribute with the sizes put in that the entry fixes.
fn fix(attr: &djinn_ir::Attr, source: &Source) -> djinn_ir::Attr {
    use djinn_ir::Attr;
    let fixed = |s: &Symbol| source.fixed(s);
    match attr {
        Attr::Dim(d) => Attr::Dim(d.substitute(&fixed)),
        Attr::Dims(dims) => Attr::Dims(dims.iter().map(|d| d.substitute(&fixed)).collect()),
        other => other.clone(),
    }
}

/// The symbols of a region in the order in which they are met, with new names.
fn bindings(region: &Region, source: &Source) -> Result<Vec<SymbolBinding>> {
    let graph = region.graph();
    let mut met: Vec<Symbol> = Vec::new();
    let mut note = |d: &Dim| {
        d.visit_symbols(&mut |s| {
            if !met.contains(s) {
                met.push(s.clone());
            }
        });
    };
    for argument in &graph.arguments {
        graph.ty(*argument).shape.iter().for_each(&mut note);
    }
    walk::for_each_dim(graph, &mut note);
    let bind = |(number, symbol): (usize, &Symbol)| {
        let (min, max) = *source.ranges.get(symbol.name()).ok_or_else(|| {
            internal("tensorrt.region", format!("the entry does not bound the size {}", symbol.name()))
        })?;
        let min = min.max(1);
        Ok(SymbolBinding { name: format!("s{number}"), symbol: symbol.name().into(), min, max: max.max(min) })
    };
    met.iter().enumerate().map(bind).collect()
}

/// The region with its symbols renamed and bounded.
fn rename(mut region: Region) -> Region {
    let names: BTreeMap<&str, &str> =
        region.symbols.iter().map(|b| (b.symbol.as_str(), b.name.as_str())).collect();
    let with = |s: &Symbol| names.get(s.name()).map(|n| Dim::symbol(n));
    region.module.functions[0].graph = walk::substitute(&region.module.functions[0].graph, &with);
    for binding in &region.symbols {
        let info = SymbolInfo { min: binding.min, max: Some(binding.max), divisor: 1 };
        region.module.symbols.0.insert(Symbol::new(&binding.name), info);
    }
    region
}
