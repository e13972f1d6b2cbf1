//! One decision per operation of the op table: how it is spelled in ONNX.
//!
//! Operations are lowered in order, each on its own; a fusion lowers its last operation and looks back at the
//! operations that it absorbs. Those are lowered as well, and the final pruning removes what nobody reads.

mod attention;
mod contraction;
mod control;
mod elementwise;
mod movement;
mod norm;
mod reduce;
mod slices;

use crate::dims;
use crate::emit::Emitter;
use crate::proto::{entry, flag, float};
use djinn_diag::{Context, Result, internal, unsupported};
use djinn_ir::{Attr, DType, Dim, Graph, Module, Op, OpId, OpKind, TensorData, TensorType, ValueId};
use djinn_onnx_proto as onnx;

/// One graph (a function's body or a region) being lowered.
pub(crate) struct Cx<'a, 'm> {
    pub(crate) e: &'a mut Emitter<'m>,
    pub(crate) module: &'m Module,
    pub(crate) graph: &'a Graph,
    names: Vec<Option<String>>,
    users: Vec<Vec<OpId>>,
    results: Vec<u32>,
}

impl<'a, 'm> Cx<'a, 'm> {
    /// Prepares a graph whose arguments the caller binds.
    pub(crate) fn new(e: &'a mut Emitter<'m>, module: &'m Module, graph: &'a Graph) -> Self {
        let mut users = vec![Vec::new(); graph.value_capacity()];
        for (id, op) in graph.ops() {
            op.operands.iter().for_each(|v| users[v.0 as usize].push(id));
        }
        let mut results = vec![0; graph.value_capacity()];
        graph.results.iter().for_each(|v| results[v.0 as usize] += 1);
        Cx { e, module, graph, names: vec![None; graph.value_capacity()], users, results }
    }

    /// Says under which name a value is found in the model, and makes its sizes available.
    pub(crate) fn bind(&mut self, v: ValueId, name: &str) {
        self.names[v.0 as usize] = Some(name.to_owned());
        if self.e.ty(name).is_none() {
            self.e.declare(name, self.graph.ty(v).clone());
        }
        // Arguments come first. A result's shape is read only for symbols that nothing else gives: reading it keeps
        // the result alive and hinders the fusions of runtimes.
        let shape = &self.graph.ty(v).shape;
        if self.graph.definition(v).is_none() || dims::has_unknown_symbol(self.e, shape) {
            self.e.add_source(name, shape);
        }
    }

    /// Lowers every operation of the graph.
    pub(crate) fn run(&mut self) -> Result<()> {
        for (id, op) in self.graph.ops() {
            let bound = |v: &ValueId| self.names[v.0 as usize].is_some();
            if !op.results.is_empty() && op.results.iter().all(bound) {
                continue;
            }
            let (scope, metadata) = origin(op);
            self.e.set_origin(&scope, metadata);
            let names = lower(self, id, op).at(|| place(id, op))?;
            if names.len() != op.results.len() {
                let message = format!("'{}' was lowered to {} results", op.kind.name(), names.len());
                return Err(internal("onnx-export.results", message));
            }
            for (v, name) in op.results.iter().zip(&names) {
                if self.names[v.0 as usize].is_none() {
                    self.bind(*v, name);
                }
            }
            self.e.set_origin("", Vec::new());
        }
        Ok(())
    }

    /// The name of a value.
    pub(crate) fn name(&self, v: ValueId) -> Result<String> {
        let name = self.names.get(v.0 as usize).cloned().flatten();
        name.ok_or_else(|| internal("onnx-export.order", "a value is used before it is defined"))
    }

    /// The names of all operands.
    fn operands(&self, op: &Op) -> Result<Vec<String>> {
        op.operands.iter().map(|v| self.name(*v)).collect()
    }

    /// The type of an operand.
    fn operand_ty(&self, op: &Op, i: usize) -> &'a TensorType {
        self.graph.ty(op.operands[i])
    }

    /// The type of the first result.
    fn result_ty(&self, op: &Op) -> TensorType {
        self.graph.ty(op.results[0]).clone()
    }

    /// The operation that defines `v`, if it is of this kind.
    fn def(&self, v: ValueId, kind: OpKind) -> Option<&'a Op> {
        let (id, _) = self.graph.definition(v)?;
        let op = self.graph.op(id);
        (op.kind == kind).then_some(op)
    }

    /// Is `v` read exactly once, by an operation of this graph?
    fn single_use(&self, v: ValueId) -> bool {
        self.users[v.0 as usize].len() == 1 && self.results[v.0 as usize] == 0
    }

    /// The operations that read `v`, one entry per reading operand.
    fn users(&self, v: ValueId) -> &[OpId] {
        &self.users[v.0 as usize]
    }

    /// How many results of the graph `v` is.
    fn result_uses(&self, v: ValueId) -> u32 {
        self.results[v.0 as usize]
    }

    /// The content of a constant or weight.
    fn known(&self, v: ValueId) -> Option<TensorData> {
        let (id, _) = self.graph.definition(v)?;
        self.module.constant_value(self.graph.op(id)).cloned()
    }

    /// One node whose inputs and outputs are those of the operation.
    fn simple(&mut self, op: &Op, onnx_op: &str, attrs: Vec<onnx::AttributeProto>) -> Result<Vec<String>> {
        let inputs = self.operands(op)?;
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let types: Vec<TensorType> = op.results.iter().map(|v| self.graph.ty(*v).clone()).collect();
        self.e.nodes(onnx_op, &inputs, attrs, &types)
    }

    /// A node of the result's type with these inputs.
    fn result_node(
        &mut self,
        op: &Op,
        onnx_op: &str,
        inputs: &[&str],
        attrs: Vec<onnx::AttributeProto>,
    ) -> Result<String> {
        let ty = self.result_ty(op);
        self.e.node(onnx_op, inputs, attrs, ty)
    }
}

/// Where an operation is, for diagnostics.
fn place(id: OpId, op: &Op) -> String {
    let name = if op.kind == OpKind::Opaque { op.attrs.str("op") } else { op.kind.name() };
    let scope = op.location.scope.as_deref().filter(|s| !s.is_empty());
    let scope = scope.map(|s| format!(" in {s}")).unwrap_or_default();
    let source = op.location.source.as_ref().map(|(file, line)| format!(" ({file}:{line})"));
    format!("operation {} '{name}'{scope}{}", id.0, source.unwrap_or_default())
}

/// Module path and metadata of the nodes of one operation.
fn origin(op: &Op) -> (String, Vec<onnx::StringStringEntryProto>) {
    let scope = op.location.scope.as_deref().unwrap_or_default().to_owned();
    let mut metadata = Vec::new();
    if !scope.is_empty() {
        metadata.push(entry("djinn.scope", scope.clone()));
    }
    if let Some((file, line)) = &op.location.source {
        metadata.push(entry("djinn.source", format!("{file}:{line}")));
    }
    for (name, value) in &op.annotations {
        metadata.push(entry(format!("djinn.{name}"), attr_text(value)));
    }
    (scope, metadata)
}

/// An annotation's value as text.
fn attr_text(attr: &Attr) -> String {
    match attr {
        Attr::Int(v) => v.to_string(),
        Attr::Float(v) => v.get().to_string(),
        Attr::Bool(v) => v.to_string(),
        Attr::Str(v) => v.to_string(),
        Attr::Ints(v) => format!("{v:?}"),
        Attr::Floats(v) => format!("{:?}", v.iter().map(|f| f.get()).collect::<Vec<_>>()),
        Attr::Dim(v) => v.to_string(),
        Attr::Dims(v) => format!("[{}]", v.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ")),
        Attr::DType(v) => v.to_string(),
        Attr::Types(v) => format!("[{}]", v.iter().map(TensorType::to_string).collect::<Vec<_>>().join(", ")),
        Attr::Tensor(v) => format!("{v:?}"),
    }
}

/// Lowers one operation; gives the names of its results.
#[allow(clippy::too_many_lines, reason = "one arm per operation of the table")]
fn lower(cx: &mut Cx<'_, '_>, id: OpId, op: &Op) -> Result<Vec<String>> {
    use OpKind as K;
    let a = &op.attrs;
    let one = |name: String| vec![name];
    match op.kind {
        K::Constant => source_constant(cx, op).map(one),
        K::Weight => source_weight(cx, op).map(one),
        K::DimExpr if a.bool("scalar") => dims::scalar(cx.e, &a.dims("exprs")[0]).map(one),
        K::DimExpr => dims::vector(cx.e, a.dims("exprs")).map(one),
        K::Iota => movement::iota(cx, op).map(one),
        K::Range => cx.simple(op, "Range", vec![]),
        K::Abs => elementwise::unary(cx, op, "Abs").map(one),
        K::Neg => elementwise::neg(cx, op).map(one),
        K::Sign => elementwise::unary(cx, op, "Sign").map(one),
        K::Exp => cx.simple(op, "Exp", vec![]),
        K::Log => cx.simple(op, "Log", vec![]),
        K::Sqrt => cx.simple(op, "Sqrt", vec![]),
        K::Rsqrt => elementwise::rsqrt(cx, op).map(one),
        K::Reciprocal => cx.simple(op, "Reciprocal", vec![]),
        K::Sin => cx.simple(op, "Sin", vec![]),
        K::Cos => cx.simple(op, "Cos", vec![]),
        K::Tan => cx.simple(op, "Tan", vec![]),
        K::Asin => cx.simple(op, "Asin", vec![]),
        K::Acos => cx.simple(op, "Acos", vec![]),
        K::Atan => cx.simple(op, "Atan", vec![]),
        K::Sinh => cx.simple(op, "Sinh", vec![]),
        K::Cosh => cx.simple(op, "Cosh", vec![]),
        K::Tanh => cx.simple(op, "Tanh", vec![]),
        K::Asinh => cx.simple(op, "Asinh", vec![]),
        K::Acosh => cx.simple(op, "Acosh", vec![]),
        K::Atanh => cx.simple(op, "Atanh", vec![]),
        K::Erf => cx.simple(op, "Erf", vec![]),
        K::Sigmoid => cx.simple(op, "Sigmoid", vec![]),
        K::Softplus => cx.simple(op, "Softplus", vec![]),
        K::Relu => elementwise::relu(cx, op).map(one),
        K::LeakyRelu => cx.simple(op, "LeakyRelu", vec![float("alpha", a.float("alpha"))]),
        K::Elu => cx.simple(op, "Elu", vec![float("alpha", a.float("alpha"))]),
        K::Silu => elementwise::silu(cx, op).map(one),
        K::Gelu => elementwise::gelu(cx, op).map(one),
        K::HardSigmoid => {
            let attrs = vec![float("alpha", a.float("alpha")), float("beta", a.float("beta"))];
            cx.simple(op, "HardSigmoid", attrs)
        }
        K::HardSwish => cx.simple(op, "HardSwish", vec![]),
        K::Mish => cx.simple(op, "Mish", vec![]),
        K::Floor => cx.simple(op, "Floor", vec![]),
        K::Ceil => cx.simple(op, "Ceil", vec![]),
        K::Round => cx.simple(op, "Round", vec![]),
        K::IsNan => cx.simple(op, "IsNaN", vec![]),
        K::IsInf => {
            let (negative, positive) = (a.bool("negative"), a.bool("positive"));
            cx.simple(op, "IsInf", vec![flag("detect_negative", negative), flag("detect_positive", positive)])
        }
        K::Not => {
            let bool = cx.operand_ty(op, 0).dtype == DType::Bool;
            cx.simple(op, if bool { "Not" } else { "BitwiseNot" }, vec![])
        }
        K::Cast => elementwise::cast(cx, op).map(one),
        K::BitCast => elementwise::bit_cast(cx, op).map(one),
        K::Add => contraction::add(cx, op).map(one),
        K::Sub => elementwise::binary(cx, op, "Sub").map(one),
        K::Mul => elementwise::binary(cx, op, "Mul").map(one),
        K::Div => elementwise::binary(cx, op, "Div").map(one),
        K::Mod => elementwise::modulo(cx, op).map(one),
        K::Pow => elementwise::pow(cx, op).map(one),
        K::Min => elementwise::extremum(cx, op, "Min", "And").map(one),
        K::Max => elementwise::extremum(cx, op, "Max", "Or").map(one),
        K::And => elementwise::logical(cx, op, "And", "BitwiseAnd").map(one),
        K::Or => elementwise::logical(cx, op, "Or", "BitwiseOr").map(one),
        K::Xor => elementwise::logical(cx, op, "Xor", "BitwiseXor").map(one),
        K::Shl => elementwise::shift(cx, op, "LEFT").map(one),
        K::Shr => elementwise::shift(cx, op, "RIGHT").map(one),
        K::Compare => elementwise::compare(cx, op).map(one),
        K::Select => elementwise::select(cx, op).map(one),
        K::Clamp => elementwise::clamp(cx, op).map(one),
        K::Reshape => movement::reshape(cx, op).map(one),
        K::DynamicReshape => cx.simple(op, "Reshape", vec![flag("allowzero", a.bool("allow_zero"))]),
        K::Transpose => movement::transpose_op(cx, op).map(one),
        K::Broadcast => {
            let x = cx.name(op.operands[0])?;
            crate::reshape::expand(cx.e, &x, a.dims("shape")).map(one)
        }
        K::DynamicBroadcast => cx.simple(op, "Expand", vec![]),
        K::Slice => slices::slice(cx, id, op).map(one),
        K::DynamicSlice => slices::dynamic_slice(cx, op).map(one),
        K::Reverse => slices::reverse(cx, op).map(one),
        K::Concat => movement::concat(cx, op).map(one),
        K::Pad => movement::pad(cx, op).map(one),
        K::DynamicPad => movement::dynamic_pad(cx, op).map(one),
        K::Tile => movement::tile(cx, op).map(one),
        K::DynamicTile => cx.simple(op, "Tile", vec![]),
        K::Gather => movement::gather(cx, op, "Gather").map(one),
        K::GatherElements => movement::gather(cx, op, "GatherElements").map(one),
        K::GatherNd => movement::gather_nd(cx, op).map(one),
        K::ScatterNd => movement::scatter_nd(cx, op).map(one),
        K::ScatterElements => movement::scatter_elements(cx, op).map(one),
        K::IndexCopy => movement::index_copy(cx, op).map(one),
        K::Trilu => movement::trilu(cx, op).map(one),
        K::NonZero => cx.simple(op, "NonZero", vec![]),
        K::ReduceSum => reduce::reduce(cx, op, "ReduceSum").map(one),
        K::ReduceMean => reduce::mean(cx, op).map(one),
        K::ReduceMax => reduce::reduce(cx, op, "ReduceMax").map(one),
        K::ReduceMin => reduce::reduce(cx, op, "ReduceMin").map(one),
        K::ReduceProd => reduce::reduce(cx, op, "ReduceProd").map(one),
        K::ArgMax => reduce::arg(cx, op, "ArgMax").map(one),
        K::ArgMin => reduce::arg(cx, op, "ArgMin").map(one),
        K::CumSum => reduce::cumsum(cx, op).map(one),
        K::CumProd => control::cumprod(cx, op).map(one),
        K::TopK => reduce::topk(cx, op),
        K::Softmax => cx.simple(op, "Softmax", vec![crate::proto::int("axis", a.int("axis"))]),
        K::LogSoftmax => cx.simple(op, "LogSoftmax", vec![crate::proto::int("axis", a.int("axis"))]),
        K::LayerNorm => norm::layer_norm(cx, op).map(one),
        K::RmsNorm => norm::rms_norm(cx, op).map(one),
        K::GroupNorm => norm::group_norm(cx, op).map(one),
        K::BatchNorm => norm::batch_norm(cx, op).map(one),
        K::MatMul => contraction::matmul(cx, op).map(one),
        K::Conv => contraction::conv(cx, op, "Conv").map(one),
        K::ConvTranspose => contraction::conv(cx, op, "ConvTranspose").map(one),
        K::MaxPool => contraction::pool(cx, op, "MaxPool").map(one),
        K::AvgPool => contraction::pool(cx, op, "AveragePool").map(one),
        K::Sdpa => attention::sdpa(cx, op).map(one),
        K::Rope => attention::rope(cx, op).map(one),
        K::Lstm => contraction::lstm(cx, op),
        K::Resize => movement::resize(cx, op).map(one),
        K::If => control::if_op(cx, op),
        K::Loop => control::loop_op(cx, op),
        // The device is in the metadata of the node.
        K::Transfer => cx.simple(op, "Identity", vec![]),
        K::Call => {
            let message = format!("the private function '{}' is called here", a.str("callee"));
            Err(unsupported("onnx-export.call", message).help("run the pass 'inline' before writing ONNX"))
        }
        K::Opaque => {
            let message =
                format!("'{}' was kept as it is (opaque) and cannot be written as ONNX", a.str("op"));
            Err(unsupported("onnx-export.opaque", message)
                .help("write --emit ir, or export the model with it decomposed"))
        }
    }
}

fn source_constant(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let data = op.attrs.tensor("value");
    let data = data.ok_or_else(|| internal("onnx-export.constant", "a constant without a value"))?;
    Ok(cx.e.constant(data))
}

fn source_weight(cx: &mut Cx<'_, '_>, op: &Op) -> Result<String> {
    let name = op.attrs.str("name");
    match cx.module.weights.get(name).and_then(|w| w.data.as_ref()) {
        Some((hash, data)) => Ok(cx.e.weight(name, *hash, data)),
        None if cx.e.options.missing_weights == crate::MissingWeights::Refuse => {
            let message = format!("the weight '{name}' has no values");
            Err(djinn_diag::input("onnx-export.weight", message)
                .help("compile from a file with weights, or allow weights to be declared without values"))
        }
        None => Ok(cx.e.missing_weight(name, &cx.result_ty(op))),
    }
}
