//! Comparing what two modules compute.

use djinn_diag::{Context, Result, input};
use djinn_interp::{Env, Outputs, Tolerance};
use djinn_ir::{Attrs, Graph, Module, OpKind, TensorData};
use djinn_pass::ConstantEvaluator;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How two modules are compared.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Inputs by argument name; random ones where absent.
    pub inputs: Option<BTreeMap<String, TensorData>>,
    /// Seed of random inputs.
    pub seed: u64,
}

/// One compared result.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Function and result.
    pub name: String,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Elements compared.
    pub elements: usize,
    /// Why it does not agree.
    pub failure: Option<String>,
}

/// The outcome of a check.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Every result and state update.
    pub results: Vec<Compared>,
    /// Whether the inputs were random.
    pub random_inputs: bool,
}

impl CheckReport {
    /// Did everything agree, and was anything compared?
    pub fn passed(&self) -> bool {
        !self.results.is_empty() && self.results.iter().all(|r| r.failure.is_none())
    }

    /// Largest absolute difference.
    pub fn max_abs(&self) -> f64 {
        self.results.iter().map(|r| r.max_abs).fold(0.0, f64::max)
    }
}

/// The reference evaluator as the passes' constant folder.
struct Reference;

impl ConstantEvaluator for Reference {
    fn eval(
        &self,
        kind: OpKind,
        attrs: &Attrs,
        operands: &[TensorData],
        regions: &[Graph],
    ) -> Option<Vec<TensorData>> {
        djinn_interp::eval_op(kind, attrs, operands, regions, &mut Env::default(), &|_| None).ok()
    }
}

/// The reference evaluator as the passes' constant folder.
pub fn evaluator() -> Arc<dyn ConstantEvaluator> {
    Arc::new(Reference)
}

/// Evaluates a function with the reference evaluator; inputs may be given by name or, where no name fits, by position.
///
/// # Errors
/// Missing or ill-typed inputs, weights without values, operations that the evaluator does not have.
pub fn evaluate(module: &Module, function: &str, inputs: &BTreeMap<String, TensorData>) -> Result<Outputs> {
    djinn_interp::run(module, function, inputs).at(|| format!("function '{function}'"))
}

/// Evaluates every entry function of both modules on the same inputs and compares all results and state updates.
///
/// # Errors
/// Inputs that do not fit, and weights without values: then nothing can be evaluated.
pub fn check(original: &Module, optimised: &Module, options: &CheckOptions) -> Result<CheckReport> {
    let mut report = CheckReport { random_inputs: options.inputs.is_none(), ..CheckReport::default() };
    for f in original.entries() {
        let inputs = match &options.inputs {
            Some(inputs) => inputs.clone(),
            None => crate::random::inputs(original, &f.name, options.seed),
        };
        let expected =
            evaluate(original, &f.name, &inputs).at(|| "original").map_err(|e| match options.inputs {
                None => e.help("random inputs may not fit this model: give real ones with --inputs FILE.npz"),
                Some(_) => e,
            })?;
        let actual = evaluate(optimised, &f.name, &inputs).at(|| "optimised")?;
        report.results.extend(compare_outputs(&f.name, &expected.outputs, &actual.outputs)?);
        report.results.extend(compare_outputs(&f.name, &expected.updates, &actual.updates)?);
    }
    Ok(report)
}

pub(crate) fn compare_outputs(
    function: &str,
    expected: &[(String, TensorData)],
    actual: &[(String, TensorData)],
) -> Result<Vec<Compared>> {
    if expected.len() != actual.len() {
        return Err(input("check.results", format!("function '{function}' has another number of results")));
    }
    Ok(expected
        .iter()
        .zip(actual)
        .map(|((name, e), (_, a))| compare_one(&format!("{function}.{name}"), e, a))
        .collect())
}

/// Compares one result within the tolerance of reassociated arithmetic.
pub(crate) fn compare_one(name: &str, expected: &TensorData, actual: &TensorData) -> Compared {
    match djinn_interp::compare(expected, actual, Tolerance::Reassoc) {
        Ok(report) => Compared {
            name: name.to_owned(),
            max_abs: report.max_abs,
            elements: report.elements,
            failure: None,
        },
        Err(mismatch) => {
            let max_abs = match &*mismatch {
                djinn_interp::Mismatch::Values(report) => report.max_abs,
                _ => f64::NAN,
            };
            let failure = Some(mismatch.to_string());
            Compared { name: name.to_owned(), max_abs, elements: expected.numel(), failure }
        }
    }
}
