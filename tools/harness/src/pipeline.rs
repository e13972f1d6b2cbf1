//! One case from file to file: import, evaluate, optimise, evaluate again, write.

use crate::case::{self, Case, Data, Feeds};
use crate::judge::{self, Verdict};
use crate::stage::{Problem, Stages, Status};
use djinn::ir::{ArgumentKind, Module, TensorData};
use djinn::onnx_export::{ExportOptions, OPSETS, Spelling, export};
use djinn::{Model, ModuleStats, OptimizeOptions};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A case and where its result goes.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What to run.
    pub(crate) case: Case,
    /// Folder of written models.
    pub(crate) out: PathBuf,
    /// Opset of the written model.
    pub(crate) opset: i64,
    /// Which spellings the written model has: native or fast.
    pub(crate) spelling: String,
    /// Also try every opset, in memory, on the original and the optimised module.
    pub(crate) all_opsets: bool,
}

impl Job {
    /// As one line for a worker.
    pub(crate) fn to_json(&self) -> Value {
        let Case { name, format, dir, model } = &self.case;
        json!({"name": name, "format": format, "dir": dir, "model": model, "out": self.out, "opset": self.opset,
            "spelling": self.spelling, "all_opsets": self.all_opsets})
    }

    /// From a line for a worker.
    pub(crate) fn from_json(v: &Value) -> Option<Job> {
        let text = |key: &str| v[key].as_str().map(str::to_owned);
        let path = |key: &str| text(key).map(PathBuf::from);
        let case =
            Case { name: text("name")?, format: text("format")?, dir: path("dir")?, model: path("model")? };
        let (opset, all_opsets) = (v["opset"].as_i64()?, v["all_opsets"].as_bool()?);
        Some(Job { case, out: path("out")?, opset, spelling: text("spelling")?, all_opsets })
    }

    /// The written model's file name without `.onnx`.
    fn stem(&self) -> String {
        format!("{}.{}", self.case.name, self.case.format)
    }
}

/// Runs a case; gives its record.
pub(crate) fn run(job: &Job) -> Value {
    let mut stages = Stages::default();
    stages.note("case", json!(job.case.name));
    stages.note("format", json!(job.case.format));
    stages.note("dir", json!(job.case.dir));
    stages.note("opset", json!(job.opset));
    let model = stages.run("import", || read(&job.case));
    let data = stages.run("data", || Ok(case::read_data(&job.case.dir)?));
    if let (Some(model), Some(data)) = (model, data) {
        let before = djinn::stats(&model.module);
        note_import(&mut stages, &model, &before);
        let feeds = model.module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
        stages.note("unused_inputs", json!(feeds.unused));
        evaluate(&mut stages, "evaluate", &model.module, &feeds, &data, job);
        if let Some(optimised) = optimise(&mut stages, &model.module) {
            let after = djinn::stats(&optimised);
            stages.run("cost", || compare_cost(&before, &after));
            note_optimised(&mut stages, &optimised, &after);
            evaluate(&mut stages, "evaluate-optimised", &optimised, &feeds, &data, job);
            write(&mut stages, &optimised, &feeds, job);
            if job.all_opsets {
                stages.note("opsets_original", every_opset(&model.module));
                stages.note("opsets_optimised", every_opset(&optimised));
            }
        }
    }
    stages.finish()
}

/// Reads the model, which must have one function.
fn read(case: &Case) -> Result<Model, Problem> {
    let model = djinn::read(&case.model)?;
    if model.module.functions.len() == 1 {
        Ok(model)
    } else {
        Err(Problem::error(format!("{} functions; the harness takes one", model.module.functions.len())))
    }
}

/// The module as it is evaluated: a decomposed program has no weights of its own and gets those of the `.pt2` beside
/// it. It is optimised and written without them.
fn with_weights<'a>(module: &'a Module, case: &Case) -> Result<Cow<'a, Module>, Problem> {
    if case.format != "core" {
        return Ok(Cow::Borrowed(module));
    }
    let source = djinn::read(&case.dir.join("model.pt2"))?.module.weights;
    let mut module = module.clone();
    for (name, weight) in &mut module.weights {
        if let Some(data) = source.get(name).and_then(|w| w.data.clone()) {
            weight.data.get_or_insert(data);
        }
    }
    Ok(Cow::Owned(module))
}

/// The weights without values; a decomposed program may have constants that the `.pt2` beside it does not have.
fn missing_weights(module: &Module) -> Vec<&str> {
    module.weights.iter().filter(|(_, w)| w.data.is_none()).map(|(name, _)| &**name).collect()
}

fn note_import(stages: &mut Stages, model: &Model, before: &ModuleStats) {
    stages.note("nodes_before", json!(before.count()));
    stages.note("seconds_before", json!(before.seconds));
    stages.note("opaque", json!(model.opaque));
    stages.note("type_checks", json!(model.type_checks.0));
    stages.note("type_disagreements", json!(model.type_checks.1));
    stages.note("kinds", json!(kinds(&model.module)));
}

fn note_optimised(stages: &mut Stages, optimised: &Module, after: &ModuleStats) {
    stages.note("nodes_after", json!(after.count()));
    stages.note("seconds_after", json!(after.seconds));
    stages.note("kinds_optimised", json!(kinds(optimised)));
}

/// Operations by name, regions included.
fn kinds(module: &Module) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for f in &module.functions {
        djinn::ir::walk::for_each_graph(&f.graph, &mut |g| {
            g.ops().for_each(|(_, op)| *out.entry(op.kind.name()).or_default() += 1);
        });
    }
    out
}

fn evaluate(stages: &mut Stages, stage: &str, module: &Module, feeds: &Feeds, data: &Data, job: &Job) {
    let verdict = stages.run(stage, || {
        let module = with_weights(module, &job.case)?;
        let missing = missing_weights(&module);
        if !missing.is_empty() {
            let message = format!("no file of the case has values for '{}'", missing.join("', '"));
            return Err(Problem { status: Status::Unsupported, code: "harness.weights".into(), message });
        }
        let name = module.functions.first().map(|f| f.name.to_string()).unwrap_or_default();
        let outputs = djinn::evaluate(&module, &name, &feeds.values(data))?;
        judge::judge(&outputs, data, feeds, job.case.format != "onnx")
    });
    if let Some(verdict) = verdict {
        note_verdict(stages, stage, &verdict);
    }
}

fn note_verdict(stages: &mut Stages, stage: &str, v: &Verdict) {
    let tolerance = if v.wide { "wide" } else { "reassociation" };
    stages.note(
        &format!("{stage}-result"),
        json!({"max_abs": v.max_abs, "max_scaled": v.max_scaled, "tolerance": tolerance,
            "compared": v.outputs.len() + v.updates.len(), "skipped": v.skipped.len()}),
    );
    let pairs = |pairs: &[(String, String)]| -> Map<String, Value> {
        pairs.iter().map(|(name, key)| (name.clone(), json!(key))).collect()
    };
    stages.note("results", Value::Object(pairs(&v.outputs)));
    stages.note("updates", Value::Object(pairs(&v.updates)));
}

fn optimise(stages: &mut Stages, module: &Module) -> Option<Module> {
    stages.run("optimise", || {
        let mut optimised = module.clone();
        djinn::optimize(&mut optimised, &OptimizeOptions::default(), None)?;
        Ok(optimised)
    })
}

/// Relative growth of modelled cost that is rounding and no growth.
const COST_ROUNDING: f64 = 1e-9;

fn compare_cost(before: &ModuleStats, after: &ModuleStats) -> Result<(), Problem> {
    if after.seconds <= before.seconds * (1.0 + COST_ROUNDING) {
        return Ok(());
    }
    let (b, a) = (before.seconds * 1e6, after.seconds * 1e6);
    Err(Problem::wrong(format!("the modelled cost grew from {b:.3} to {a:.3} µs")))
}

fn write(stages: &mut Stages, module: &Module, feeds: &Feeds, job: &Job) {
    let path = job.out.join(format!("{}.onnx", job.stem()));
    // What an earlier run left must not be taken for this run's.
    let _ = std::fs::remove_file(&path);
    let options = ExportOptions { opset: job.opset, spelling: spelling(job), ..ExportOptions::default() };
    let nodes = stages.run("write", || Ok(djinn::export_onnx(module, &path, options)?));
    let Some(nodes) = nodes else { return };
    stages.note("onnx", json!(path));
    stages.note("onnx_nodes", json!(nodes));
    let feeds: Map<String, Value> = feeds.pairs.iter().map(|(a, k)| (a.clone(), json!(k))).collect();
    let initial = stages.run("initial-state", || write_initial_state(module, &feeds, job));
    stages.note("initial", Value::Object(initial.unwrap_or_default()));
    stages.note("feeds", Value::Object(feeds));
}

fn spelling(job: &Job) -> Spelling {
    if job.spelling == "fast" { Spelling::Fast } else { Spelling::Native }
}

/// Writes the first values of state that no recorded input gives, for those who run the written model.
fn write_initial_state(
    module: &Module,
    feeds: &Map<String, Value>,
    job: &Job,
) -> Result<Map<String, Value>, Problem> {
    let mut files = Map::new();
    for (name, kind) in module.functions.iter().flat_map(|f| &f.arguments) {
        let ArgumentKind::State { initial: Some(weight) } = kind else { continue };
        let data = module.weights.get(weight).and_then(|w| w.data.as_ref());
        let (Some((_, data)), false) = (data, feeds.contains_key(&**name)) else { continue };
        let file = job.out.join(format!("{}.state{}.npy", job.stem(), files.len()));
        let failed = |e: std::io::Error| Problem::error(format!("{}: {e}", file.display()));
        let bytes =
            npy(data).ok_or_else(|| Problem::error(format!("NumPy has no type for {}", data.dtype())))?;
        std::fs::write(&file, bytes).map_err(failed)?;
        files.insert(name.to_string(), json!(file));
    }
    Ok(files)
}

/// A tensor in NumPy's format, version 1: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
fn npy(t: &TensorData) -> Option<Vec<u8>> {
    use djinn::ir::DType as D;
    let descr = match t.dtype() {
        D::Bool => "|b1",
        D::I8 => "|i1",
        D::I16 => "<i2",
        D::I32 => "<i4",
        D::I64 => "<i8",
        D::U8 => "|u1",
        D::U16 => "<u2",
        D::U32 => "<u4",
        D::U64 => "<u8",
        D::F16 => "<f2",
        D::F32 => "<f4",
        D::F64 => "<f8",
        D::BF16 => return None,
    };
    let shape: String = t.shape().iter().map(|d| format!("{d},")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic number, version and length take ten bytes; the data starts at a multiple of 64.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&u16::try_from(length).ok()?.to_le_bytes());
    out.extend_from_slice(format!("{header:<width$}\n", width = length - 1).as_bytes());
    out.extend_from_slice(t.bytes());
    Some(out)
}

/// Which opsets the module can be written in: "ok", or the code of the refusal.
fn every_opset(module: &Module) -> Value {
    let attempt = |opset: i64| {
        let options = ExportOptions { opset, ..ExportOptions::default() };
        let export = std::panic::AssertUnwindSafe(|| export(module, &options));
        match std::panic::catch_unwind(export) {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(d)) => format!("{} {}", Problem::from(d.clone()).status.word(), d.code),
            Err(_) => Status::Crash.word().to_owned(),
        }
    };
    Value::Object(OPSETS.iter().map(|(opset, _)| (opset.to_string(), json!(attempt(*opset)))).collect())
}

/// The folder of written models, made if it is absent.
pub(crate) fn make_folder(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_is_aligned_and_complete() {
        let t = TensorData::from_f32(&[2, 1], &[1.0, 2.0]).expect("fits");
        let bytes = npy(&t).expect("a type that NumPy has");
        assert_eq!(bytes.len(), 128 + 8);
        assert_eq!(&bytes[128..], t.bytes());
        assert_eq!(bytes[127], b'\n');
    }

    #[test]
    fn jobs_survive_the_pipe() {
        let case =
            Case { name: "a".into(), format: "onnx".into(), dir: "d".into(), model: "d/model.onnx".into() };
        let job = Job { case, out: "out".into(), opset: 23, spelling: "fast".into(), all_opsets: true };
        let back = Job::from_json(&job.to_json()).expect("complete");
        assert_eq!((back.case, back.out, back.opset), (job.case, job.out, 23));
        assert_eq!(back.spelling, "fast");
    }
}
