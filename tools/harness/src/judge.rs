//! Is what was computed what was recorded?
//!
//! Recorded results come from eager fp32 PyTorch, from NumPy or from ONNX Runtime, which round and sum in their own
//! ways. Types, shapes, integers and booleans must agree exactly. Floats must lie within the evaluator's own tolerance
//! for reassociated sums or, where one does not, within the wide one: `|a − e| ≤ 1e-3·|e| + 1e-4·max|e|` for f32 and
//! f64. Narrow floats have only the former, which is wider for them. The record says which one was needed.

use crate::case::{Data, Feeds, same_name};
use crate::stage::Problem;
use djinn::interp::{Mismatch, Outputs, Tolerance};
use djinn::ir::{DType, TensorData};

/// What was compared.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Largest absolute error.
    pub(crate) max_abs: f64,
    /// Largest absolute error relative to the largest magnitude of its tensor.
    pub(crate) max_scaled: f64,
    /// Was the wide tolerance needed?
    pub(crate) wide: bool,
    /// Names of compared arrays and of what they were compared with.
    pub(crate) outputs: Vec<(String, String)>,
    /// State arguments and the recorded arrays that their updates were compared with.
    pub(crate) updates: Vec<(String, String)>,
    /// Recorded state updates that this format does not have.
    pub(crate) skipped: Vec<String>,
}

/// Prefixes of recorded state updates.
const STATE: [&str; 2] = ["mutated_buffer.", "mutated_input."];

/// Compares every recorded array. `states` says whether the format keeps state updates at all.
pub(crate) fn judge(actual: &Outputs, data: &Data, feeds: &Feeds, states: bool) -> Result<Verdict, Problem> {
    let mut verdict = Verdict::default();
    for (key, expected) in &data.expected {
        if let Some(state) = STATE.iter().find_map(|p| key.strip_prefix(p)) {
            if !states {
                verdict.skipped.push(key.clone());
                continue;
            }
            let (name, value) = update(actual, state, feeds)?;
            add(&mut verdict, key, expected, value)?;
            verdict.updates.push((name.clone(), key.clone()));
        } else {
            let (name, value) = output(actual, key, data)?;
            add(&mut verdict, key, expected, value)?;
            verdict.outputs.push((name.clone(), key.clone()));
        }
    }
    if verdict.outputs.is_empty() && verdict.updates.is_empty() {
        return Err(Problem::error("nothing was compared: expected.npz has no array for this format"));
    }
    Ok(verdict)
}

/// The update of a state by the state's name, or by the name under which its first value is recorded.
fn update<'a>(actual: &'a Outputs, state: &str, feeds: &Feeds) -> Result<&'a (String, TensorData), Problem> {
    let fed = |name: &str| feeds.pairs.iter().any(|(argument, key)| argument == name && key == state);
    let by = |matches: &dyn Fn(&str) -> bool| actual.updates.iter().find(|(n, _)| matches(n));
    by(&|n| n == state).or_else(|| by(&fed)).or_else(|| by(&|n| same_name(n, state))).ok_or_else(|| {
        let names: Vec<&str> = actual.updates.iter().map(|(n, _)| n.as_str()).collect();
        Problem::wrong(format!("no update of state '{state}'; there are '{}'", names.join("', '")))
    })
}

/// The result of a name; where there is none, the one at the recorded position, or the only one.
fn output<'a>(actual: &'a Outputs, key: &str, data: &Data) -> Result<&'a (String, TensorData), Problem> {
    let by_name = actual.outputs.iter().find(|(n, _)| n == key);
    let by_position = || {
        let order = &data.output_order;
        let at = order.iter().position(|n| n == key).filter(|_| order.len() == actual.outputs.len());
        at.or_else(|| (actual.outputs.len() == 1 && data.expected.len() == 1).then_some(0))
    };
    by_name.or_else(|| actual.outputs.get(by_position()?)).ok_or_else(|| {
        let names: Vec<&str> = actual.outputs.iter().map(|(n, _)| n.as_str()).collect();
        Problem::wrong(format!("no result '{key}'; there are '{}'", names.join("', '")))
    })
}

fn add(verdict: &mut Verdict, key: &str, expected: &TensorData, actual: &TensorData) -> Result<(), Problem> {
    let scale = scale(expected);
    let mut result = djinn::interp::compare(expected, actual, Tolerance::Reassoc);
    let wide = wide(expected.dtype(), scale);
    let values_differ = matches!(&result, Err(m) if matches!(**m, Mismatch::Values(_)));
    if let Some(wide) = wide.filter(|_| values_differ) {
        result = djinn::interp::compare(expected, actual, wide);
        verdict.wide |= result.is_ok();
    }
    let report = result.map_err(|m| Problem::wrong(format!("'{key}': {m}")))?;
    verdict.max_abs = verdict.max_abs.max(report.max_abs);
    if scale > 0.0 {
        verdict.max_scaled = verdict.max_scaled.max(report.max_abs / scale);
    }
    Ok(())
}

/// The wide tolerance for a type.
fn wide(dtype: DType, scale: f64) -> Option<Tolerance> {
    matches!(dtype, DType::F32 | DType::F64).then_some(Tolerance::Approx { rtol: 1e-3, atol: 1e-4 * scale })
}

/// The largest finite magnitude.
fn scale(t: &TensorData) -> f64 {
    let magnitude = |i| t.get_f64(i).map(f64::abs).filter(|v| v.is_finite());
    if t.dtype().is_float() { (0..t.numel()).filter_map(magnitude).fold(0.0, f64::max) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(key: &str, values: &[f32]) -> Data {
        let mut data = Data::default();
        data.expected.insert(key.into(), TensorData::from_f32(&[values.len()], values).expect("fits"));
        data
    }

    fn outputs(name: &str, values: &[f32]) -> Outputs {
        let t = TensorData::from_f32(&[values.len()], values).expect("fits");
        Outputs { outputs: vec![(name.into(), t.clone())], updates: vec![("past_0_key".into(), t)] }
    }

    fn verdict(actual: &Outputs, data: &Data, states: bool) -> Result<Verdict, Problem> {
        judge(actual, data, &Feeds::default(), states)
    }

    #[test]
    fn a_wide_difference_is_told_apart_from_a_wrong_one() {
        let wide = verdict(&outputs("y", &[1.0, 100.0]), &data("y", &[1.005, 100.0]), true).expect("within");
        assert!(wide.wide);
        assert!(verdict(&outputs("y", &[1.0, 100.0]), &data("y", &[1.2, 100.0]), true).is_err());
        assert!(verdict(&outputs("y", &[1.0]), &data("y", &[1.0, 2.0]), true).is_err());
    }

    #[test]
    fn names_positions_and_states() {
        let only = verdict(&outputs("linear_3", &[1.0]), &data("y", &[1.0]), true).expect("the only one");
        assert_eq!(only.outputs, [("linear_3".to_owned(), "y".to_owned())]);
        let state = data("mutated_input.past.0.key", &[1.0]);
        assert_eq!(verdict(&outputs("y", &[1.0]), &state, true).expect("agrees").updates.len(), 1);
        assert!(verdict(&outputs("y", &[1.0]), &state, false).is_err());
    }
}
