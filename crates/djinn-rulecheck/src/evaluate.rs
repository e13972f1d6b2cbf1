//! Evaluation of both sides of a rule with the reference evaluator, and their comparison.

use crate::instance::Instance;
use djinn_diag::{Result, internal};
use djinn_egraph::rule::Numerics;
use djinn_interp::{Env, eval_op};
use djinn_ir::{DType, Graph, Module, Op, TensorData, ValueId};

/// The values of a body, kept so that a rewritten body costs only its new operations.
#[derive(Debug, Clone)]
pub(crate) struct Evaluated {
    values: Vec<Option<TensorData>>,
    /// Values of symbols.
    env: Env,
    /// Number of operations that have been evaluated.
    ops: usize,
    /// The results.
    pub(crate) results: Vec<TensorData>,
    /// The largest finite magnitude of any float computed on the way.
    scale: f64,
    /// Is an argument, weight or literal not finite everywhere?
    non_finite: bool,
}

fn floats(t: &TensorData) -> impl Iterator<Item = f64> {
    let count = if t.dtype().is_float() { t.numel() } else { 0 };
    (0..count).filter_map(|i| t.get_f64(i))
}

fn largest_magnitude(t: &TensorData) -> f64 {
    floats(t).filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
}

/// Evaluates the left side.
///
/// # Errors
/// What the evaluator refuses.
pub(crate) fn evaluate(instance: &Instance, arguments: &[TensorData], env: Env) -> Result<Evaluated> {
    let body = &instance.body;
    let mut out =
        Evaluated { values: Vec::new(), env, ops: 0, results: Vec::new(), scale: 0.0, non_finite: false };
    out.values.resize(body.value_capacity(), None);
    for (v, data) in body.arguments.iter().zip(arguments) {
        out.scale = out.scale.max(largest_magnitude(data));
        out.non_finite |= !floats(data).all(f64::is_finite);
        out.values[v.0 as usize] = Some(data.clone());
    }
    out.results = out.proceed(body, &instance.module)?;
    Ok(out)
}

/// Evaluates a rewritten body, which holds the operations of the left side first.
///
/// # Errors
/// What the evaluator refuses.
pub(crate) fn evaluate_rewritten(left: &Evaluated, body: &Graph, module: &Module) -> Result<Vec<TensorData>> {
    let mut right = left.clone();
    right.values.resize(body.value_capacity(), None);
    right.proceed(body, module)
}

impl Evaluated {
    fn proceed(&mut self, body: &Graph, module: &Module) -> Result<Vec<TensorData>> {
        for (_, op) in body.ops().skip(self.ops) {
            let operands: Vec<TensorData> =
                op.operands.iter().map(|v| self.value(*v)).collect::<Result<_>>()?;
            let results = self.op(op, &operands, module)?;
            for (v, data) in op.results.iter().zip(results) {
                if self.env.shape(body.ty(*v))? != data.shape() {
                    // Inference trusts sizes that it cannot compare; here the sizes break that trust.
                    return Err(internal("rulecheck.shape", format!("{} is not {}", data.ty(), body.ty(*v))));
                }
                self.scale = self.scale.max(largest_magnitude(&data));
                self.non_finite |= op.operands.is_empty() && !floats(&data).all(f64::is_finite);
                self.values[v.0 as usize] = Some(data);
            }
        }
        self.ops = body.len();
        body.results.iter().map(|v| self.value(*v)).collect()
    }

    fn op(&mut self, op: &Op, operands: &[TensorData], module: &Module) -> Result<Vec<TensorData>> {
        let weights = |name: &str| module.weights.get(name)?.data.as_ref().map(|(_, d)| d.clone());
        eval_op(op.kind, &op.attrs, operands, &op.regions, &mut self.env, &weights)
    }

    fn value(&self, v: ValueId) -> Result<TensorData> {
        let value = self.values.get(v.0 as usize).cloned().flatten();
        value.ok_or_else(|| internal("rulecheck.value", format!("value {} has not been computed", v.0)))
    }
}

/// How the two sides compare.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Agreement {
    /// As the class of the rule promises.
    Equal,
    /// As promised where all is finite, but not where the left side is NaN or infinite.
    NonFinite(String),
    /// As promised where all is finite, but NaN or infinite operands make the right side lose what the left keeps.
    Lossy(String),
    /// The right side refuses empty tensors on which the left side has a value.
    Empty,
    /// Not as promised.
    Differs(String),
}

/// Largest error of a reassociation relative to the largest magnitude met, and the absolute error always allowed.
fn reassoc_tolerance(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F64 => (1e-9, 1e-290),
        DType::F32 => (1e-3, 1e-37),
        DType::F16 => (3e-2, 1e-4),
        DType::BF16 => (2e-1, 1e-37),
        _ => (0.0, 0.0),
    }
}

/// Compares a result of the left side with that of the right side.
pub(crate) fn agree(
    left: &TensorData,
    right: &TensorData,
    numerics: Numerics,
    evaluated: &Evaluated,
) -> Agreement {
    let scale = evaluated.scale;
    if left.dtype() != right.dtype() || left.shape() != right.shape() {
        return Agreement::Differs(format!("the left side is {}, the right side {}", left.ty(), right.ty()));
    }
    if left.bytes() == right.bytes() {
        return Agreement::Equal;
    }
    let (relative, floor) = match numerics {
        Numerics::Exact => (0.0, 0.0),
        Numerics::Reassoc => reassoc_tolerance(left.dtype()),
        Numerics::Approx(t) => (t.max(reassoc_tolerance(left.dtype()).0), reassoc_tolerance(left.dtype()).1),
    };
    let mut outcome = Agreement::Equal;
    for i in 0..left.numel() {
        let (Some(l), Some(r)) = (left.get_f64(i), right.get_f64(i)) else { continue };
        let same = if left.dtype().is_float() {
            l.to_bits() == r.to_bits() || (l.is_nan() && r.is_nan())
        } else {
            left.get_i64(i) == right.get_i64(i)
        };
        if same
            || (numerics != Numerics::Exact
                && (l == r || (l - r).abs() <= relative * scale.max(l.abs()) + floor))
        {
            continue;
        }
        let message = format!("element {i}: {l:?} on the left, {r:?} on the right");
        if numerics == Numerics::Exact || (l.is_finite() && !evaluated.non_finite) {
            return Agreement::Differs(message);
        }
        match (l.is_finite(), &outcome) {
            (true, _) => outcome = Agreement::Lossy(message),
            (false, Agreement::Equal) => outcome = Agreement::NonFinite(message),
            (false, _) => {}
        }
    }
    outcome
}
