//! Evaluation of one operation: checks, dispatch over the op table, and what the result shapes tell of symbols.

use crate::call::Call;
use crate::elementwise::{self as ew, binary, bitwise, map_float, map_number, max_nan, min_nan, test_float};
use crate::env::Env;
use crate::tensor::checked_numel;
use crate::{
    attention, contraction, control, dynamic, indexing, movement, norm, recurrent, reduce, resize, window,
};
use djinn_diag::{Result, input, internal, unsupported};
use djinn_ir::{Attrs, DType, Function, Graph, OpKind, TensorData, TensorType, infer, ops::traits};

/// Gives the contents of a weight by name.
pub type Weights<'a> = dyn Fn(&str) -> Option<TensorData> + 'a;

/// What an operation may name beside its operands.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    /// Contents of weights.
    pub(crate) weights: &'a Weights<'a>,
    /// Functions that can be called.
    pub(crate) functions: &'a [Function],
}

/// Evaluates one operation on concrete operands. A `call` finds no function here: [`crate::run`] knows them.
///
/// `env` holds the values of the symbols in the attributes. An operation whose result shape depends on operand
/// values gives the fresh symbols of its `result_shape` their values.
///
/// # Errors
/// The labels of the op table for violated constraints; `interp.<op>` for operands that do not go together;
/// `interp.size` for results that are too large; `interp.opaque` and `interp.weight` for what has no value.
pub fn eval_op(
    kind: OpKind,
    attrs: &Attrs,
    operands: &[TensorData],
    regions: &[Graph],
    env: &mut Env,
    weights: &Weights,
) -> Result<Vec<TensorData>> {
    eval_in(kind, attrs, operands, regions, env, &Program { weights, functions: &[] })
}

/// [`eval_op`] in a program.
pub(crate) fn eval_in(
    kind: OpKind,
    attrs: &Attrs,
    operands: &[TensorData],
    regions: &[Graph],
    env: &mut Env,
    program: &Program<'_>,
) -> Result<Vec<TensorData>> {
    match kind {
        OpKind::If => return control::eval_if(operands, regions, env, program),
        OpKind::Loop => return control::eval_loop(attrs, operands, regions, env, program),
        OpKind::Call => return control::eval_call(attrs, operands, env, program),
        OpKind::Opaque => return Err(opaque(attrs)),
        _ => {}
    }
    let attrs = env.concretize(attrs)?;
    operands.iter().try_for_each(|t| checked_numel(t.shape()).map(|_| ()))?;
    let types: Vec<TensorType> = operands.iter().map(TensorData::ty).collect();
    let types = infer::infer(kind, &types.iter().collect::<Vec<_>>(), &attrs, regions)?;
    for shape in types.iter().filter_map(TensorType::const_shape) {
        checked_numel(&shape)?;
    }
    let call = Call { kind, attrs: &attrs, operands, types: &types };
    let results = match kind {
        OpKind::TopK => reduce::topk(&call)?,
        OpKind::Lstm => recurrent::lstm(&call)?,
        _ => vec![single(&call, program.weights)?],
    };
    check_results(&call, &results, env)?;
    Ok(results)
}

fn opaque(attrs: &Attrs) -> Box<djinn_diag::Diagnostic> {
    let name = attrs.str("op");
    unsupported("interp.opaque", format!("the operation '{name}' is unknown and cannot be evaluated"))
}

/// Results must have the inferred types; where these have fresh symbols, the symbols get their values.
fn check_results(call: &Call, results: &[TensorData], env: &mut Env) -> Result<()> {
    let name = call.kind.name();
    let disagree =
        |ty: &TensorType, r: &TensorData| format!("'{name}' computed {} where its type says {ty}", r.ty());
    for (ty, r) in call.types.iter().zip(results) {
        if ty.dtype != r.dtype() {
            return Err(internal("interp.type", disagree(ty, r)));
        }
        if call.kind.def().has(traits::DATA_DEPENDENT) {
            env.bind_shape(&format!("the result of '{name}'"), ty, r.shape())?;
        } else if ty.const_shape().as_deref() != Some(r.shape()) {
            return Err(internal("interp.shape", disagree(ty, r)));
        }
    }
    Ok(())
}

fn weight(call: &Call, weights: &Weights) -> Result<TensorData> {
    let name = call.attrs.str("name");
    weights(name).ok_or_else(|| {
        input("interp.weight", format!("weight '{name}' has no values"))
            .help("evaluation needs a model file that comes with its weights")
    })
}

/// The result of an operation that has one result and no regions.
#[allow(clippy::too_many_lines, reason = "one arm per operation of the table")]
fn single(call: &Call, weights: &Weights) -> Result<TensorData> {
    use OpKind as K;
    let a = call.attrs;
    match call.kind {
        K::Constant => a.tensor("value").cloned().ok_or_else(|| call.fail("there is no value")),
        K::Weight => weight(call, weights),
        K::DimExpr => movement::dim_expr(call),
        K::Iota => movement::iota(call),
        K::Range => dynamic::range(call),

        K::Abs => map_number(call, f64::abs, |v, unsigned| if unsigned { v } else { v.wrapping_abs() }),
        K::Neg => map_number(call, |v| -v, |v, _| v.wrapping_neg()),
        K::Sign => {
            map_number(call, ew::sign, |v, unsigned| if unsigned { i64::from(v != 0) } else { v.signum() })
        }
        K::Relu => map_number(call, |v| max_nan(v, 0.0), |v, unsigned| if unsigned { v } else { v.max(0) }),
        K::Exp => map_float(call, libm::exp),
        K::Log => map_float(call, libm::log),
        K::Sqrt => map_float(call, f64::sqrt),
        K::Rsqrt => map_float(call, |v| 1.0 / v.sqrt()),
        K::Reciprocal => map_float(call, |v| 1.0 / v),
        K::Sin => map_float(call, libm::sin),
        K::Cos => map_float(call, libm::cos),
        K::Tan => map_float(call, libm::tan),
        K::Asin => map_float(call, libm::asin),
        K::Acos => map_float(call, libm::acos),
        K::Atan => map_float(call, libm::atan),
        K::Sinh => map_float(call, libm::sinh),
        K::Cosh => map_float(call, libm::cosh),
        K::Tanh => map_float(call, libm::tanh),
        K::Asinh => map_float(call, libm::asinh),
        K::Acosh => map_float(call, libm::acosh),
        K::Atanh => map_float(call, libm::atanh),
        K::Erf => map_float(call, libm::erf),
        K::Sigmoid => map_float(call, ew::sigmoid),
        K::Softplus => map_float(call, ew::softplus),
        K::LeakyRelu => {
            let alpha = a.float("alpha");
            map_float(call, |v| if v >= 0.0 { v } else { alpha * v })
        }
        K::Elu => {
            let alpha = a.float("alpha");
            map_float(call, |v| if v >= 0.0 { v } else { alpha * libm::expm1(v) })
        }
        K::Silu => map_float(call, |v| v * ew::sigmoid(v)),
        K::Gelu => map_float(call, |v| ew::gelu(v, a.str("approximate"))),
        K::HardSigmoid => {
            let (alpha, beta) = (a.float("alpha"), a.float("beta"));
            map_float(call, |v| max_nan(0.0, min_nan(1.0, alpha * v + beta)))
        }
        K::HardSwish => map_float(call, |v| v * max_nan(0.0, min_nan(1.0, v / 6.0 + 0.5))),
        K::Mish => map_float(call, |v| v * libm::tanh(ew::softplus(v))),
        K::Floor => map_float(call, f64::floor),
        K::Ceil => map_float(call, f64::ceil),
        K::Round => map_float(call, f64::round_ties_even),
        K::IsNan => test_float(call, f64::is_nan),
        K::IsInf => {
            let (negative, positive) = (a.bool("negative"), a.bool("positive"));
            test_float(call, |v| v.is_infinite() && if v < 0.0 { negative } else { positive })
        }
        K::Not if call.x()?.dtype() == DType::Bool => map_number(call, |v| v, |v, _| 1 - v),
        K::Not => map_number(call, |v| v, |v, _| !v),
        K::Cast => ew::cast(call.x()?, a.dtype("to").unwrap_or(DType::F32)),
        K::BitCast => ew::bit_cast(call.x()?, a.dtype("to").unwrap_or(DType::F32)),

        K::Add => binary(call, |p, q| p + q, i64::wrapping_add, u64::wrapping_add),
        K::Sub => binary(call, |p, q| p - q, i64::wrapping_sub, u64::wrapping_sub),
        K::Mul => binary(call, |p, q| p * q, i64::wrapping_mul, u64::wrapping_mul),
        K::Div => binary(
            call,
            |p, q| p / q,
            |p, q| if q == 0 { 0 } else { p.wrapping_div(q) },
            |p, q| p.checked_div(q).unwrap_or(0),
        ),
        K::Mod if a.bool("fmod") => binary(
            call,
            libm::fmod,
            |p, q| if q == 0 { 0 } else { p.wrapping_rem(q) },
            |p, q| p.checked_rem(q).unwrap_or(0),
        ),
        K::Mod => binary(call, ew::floor_mod, ew::floor_mod_int, |p, q| p.checked_rem(q).unwrap_or(0)),
        K::Pow => ew::pow(call),
        K::Min => binary(call, min_nan, i64::min, u64::min),
        K::Max => binary(call, max_nan, i64::max, u64::max),
        K::And => bitwise(call, |p, q| p & q),
        K::Or => bitwise(call, |p, q| p | q),
        K::Xor => bitwise(call, |p, q| p ^ q),
        K::Shl => ew::shift(call, true),
        K::Shr => ew::shift(call, false),
        K::Compare => ew::compare(call),
        K::Select => ew::select(call),
        K::Clamp => ew::clamp(call),

        K::Reshape => movement::reshape(call.x()?, call.sizes("shape")?),
        K::DynamicReshape => dynamic::dynamic_reshape(call),
        K::Transpose => movement::transpose(call),
        K::Broadcast => movement::broadcast_to(call.x()?, &call.sizes("shape")?),
        K::DynamicBroadcast => dynamic::dynamic_broadcast(call),
        K::Slice => movement::slice(call),
        K::DynamicSlice => dynamic::dynamic_slice(call),
        K::Reverse => movement::reverse(call),
        K::Concat => movement::concat(call.operands, call.axis()),
        K::Pad => movement::pad(call, call.operand(1)?, &call.amounts("low")?, &call.amounts("high")?),
        K::DynamicPad => dynamic::dynamic_pad(call),
        K::Tile => movement::tile(call.x()?, &call.sizes("repeats")?),
        K::DynamicTile => dynamic::dynamic_tile(call),
        K::Gather => indexing::gather(call),
        K::GatherElements => indexing::gather_elements(call),
        K::GatherNd => indexing::gather_nd(call),
        K::ScatterNd => indexing::scatter_nd(call),
        K::ScatterElements => indexing::scatter_elements(call),
        K::IndexCopy => indexing::index_copy(call),
        K::Trilu => movement::trilu(call),
        K::NonZero => indexing::nonzero(call),

        K::ReduceSum => reduce::fold(call, (0.0, |p, q| p + q), (0, &i64::wrapping_add)),
        K::ReduceMean => reduce::mean(call),
        K::ReduceMax => reduce::extreme(call, true),
        K::ReduceMin => reduce::extreme(call, false),
        K::ReduceProd => reduce::fold(call, (1.0, |p, q| p * q), (1, &i64::wrapping_mul)),
        K::ArgMax => reduce::arg_extreme(call, true),
        K::ArgMin => reduce::arg_extreme(call, false),
        K::CumSum => reduce::cumulate(call, (0.0, |p, q| p + q), (0, i64::wrapping_add)),
        K::CumProd => reduce::cumulate(call, (1.0, |p, q| p * q), (1, i64::wrapping_mul)),

        K::Softmax => norm::softmax(call, false),
        K::LogSoftmax => norm::softmax(call, true),
        K::LayerNorm => norm::layer_norm(call),
        K::RmsNorm => norm::rms_norm(call),
        K::GroupNorm => norm::group_norm(call),
        K::BatchNorm => norm::batch_norm(call),

        K::MatMul => contraction::matmul(call),
        K::Conv => window::conv(call),
        K::ConvTranspose => window::conv_transpose(call),
        K::MaxPool => window::max_pool(call),
        K::AvgPool => window::avg_pool(call),
        K::Sdpa => attention::sdpa(call),
        K::Rope => attention::rope(call),
        K::Resize => resize::resize(call),
        K::Transfer => call.x().cloned(),

        K::TopK | K::Lstm | K::If | K::Loop | K::Call | K::Opaque => {
            Err(internal("interp.dispatch", format!("'{}' is not evaluated as one result", call.kind.name())))
        }
    }
}
