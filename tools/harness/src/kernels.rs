//! `djinn-harness kernels`: every kernel group of plans as generated code, on the values of a run, beside the evaluator.

use crate::case::{self, Case};
use crate::interpret::{self, Outcome};
use crate::stage::{self, Problem, Stages};
use crate::table::{Table, short};
use djinn::device::{Profile, Target};
use djinn::interp::{Env, Mismatch, Tolerance, compare};
use djinn::ir::{Dim, Function, Graph, Module, OpId, TensorData, ValueId};
use djinn::plan_data::{Kernel, Operand, ValueRef};
use djinn::{OptimizeOptions, PlanRequest};
use djinn_kernel::{Group, HostKernel, Param, Step};
use djinn_mlir::{Compiler, Jit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2")]
    formats: Vec<String>,
    /// Also print the kernels that fail
    #[arg(long)]
    show: bool,
    /// Assemble the GPU code of every group with this `ptxas`
    #[arg(long, value_name = "FILE")]
    ptxas: Option<PathBuf>,
    /// Interpret no GPU code that takes more instructions of all its threads together
    #[arg(long, value_name = "N", default_value_t = 2_000_000_000)]
    instructions: u64,
    /// The GPU's architecture
    #[arg(long, default_value = "sm_90")]
    chip: String,
}

/// Runs every case; gives false if a kernel is wrong.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    stage::record_panics();
    let compiler = match Compiler::load() {
        Ok(compiler) => compiler,
        Err(e) => {
            println!("kernels: skipped ({e})");
            return Ok(true);
        }
    };
    let columns = [
        "model",
        ">groups",
        ">fused",
        ">distinct",
        ">library",
        ">evaluated",
        ">wrong",
        ">max error",
        ">jit s",
        ">ptx",
        ">interpreted",
        ">in place",
        "why",
    ];
    let mut t = Table::new(&columns);
    let (mut wrong, mut ran, mut skipped) = (0, 0, 0);
    for case in case::find(&args.dirs, &args.formats)? {
        let mut stages = Stages::default();
        stages.note("case", json!(case.name));
        run(&mut stages, &case, &compiler, args);
        let record = stages.finish();
        wrong += usize::from(record["status"] != "ok");
        ran += record["ran"].as_u64().unwrap_or(0);
        skipped += record["skipped"].as_u64().unwrap_or(0);
        t.row(row(&record));
    }
    let limit = args.instructions;
    let skipped = format!("{skipped} skipped (more than {limit} instructions; --instructions)");
    println!("{}kernels: GPU code interpreted: {ran} distinct; {skipped}", t.render());
    println!("kernels: {wrong} cases with wrong or refused kernels");
    Ok(wrong == 0)
}

fn row(r: &Value) -> Vec<String> {
    let n = |key: &str| r[key].as_u64().map(|n| n.to_string()).unwrap_or_default();
    let f = |key: &str| r[key].as_f64().map(|n| format!("{n:.2e}")).unwrap_or_default();
    let mut cells = vec![r["case"].as_str().unwrap_or("").to_owned()];
    cells.extend(["groups", "fused", "distinct", "library", "evaluated", "wrong"].map(n));
    cells.extend([f("error"), f("jit"), r["ptx"].as_str().unwrap_or("").to_owned()]);
    cells.push(r["interpreted"].as_str().unwrap_or("").to_owned());
    cells.push(r["in_place"].as_str().unwrap_or("").to_owned());
    let why = r["why"].as_str().or(r["message"].as_str()).unwrap_or("");
    cells.push(short(why, 200));
    cells
}

/// What the kernels of a case came to.
#[derive(Default)]
struct Tally {
    groups: u64,
    library: u64,
    evaluated: u64,
    wrong: u64,
    error: f64,
    why: BTreeMap<String, u64>,
}

/// A fused step and its code.
struct Fused<'a> {
    kernel: HostKernel,
    graph: &'a Graph,
    aliases: Vec<(ValueId, ValueId)>,
}

fn run(stages: &mut Stages, case: &Case, compiler: &Compiler, args: &Args) -> Option<()> {
    let model = stages.run("import", || Ok(djinn::read(&case.model)?))?;
    let data = stages.run("data", || Ok(case::read_data(&case.dir)?))?;
    let feeds = model.module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
    let values = feeds.values(&data);
    let mut module = model.module;
    let plan = stages.run("plan", || {
        let sizes = crate::plans::sizes(&module, &values)?;
        djinn::optimize(&mut module, &OptimizeOptions::default(), None)?;
        let host = Profile::builtin("host").ok_or_else(|| Problem::error("no profile is called host"))?;
        let mut request = PlanRequest::new(Target::single(host));
        request.optimize.pipeline = "builtin.module()".into();
        request.sizes = sizes;
        Ok(djinn::plan(&mut module, &request, None)?.plan)
    })?;
    let entry = plan.entries.first()?;
    let function = module.function(&entry.function)?;
    let traced = stages.run("evaluate", || trace(&module, function, &values))?;
    let mut tally = Tally::default();
    let order: Vec<OpId> = function.graph.ops().map(|(id, _)| id).collect();
    let mut fused = Vec::new();
    for kernel in &entry.kernels {
        tally.groups += 1;
        lower(&function.graph, &order, kernel, &mut fused, &mut tally);
    }
    let gpu =
        stages.run("ptx", || assemble(&function.graph, &order, &entry.kernels, &traced, (compiler, args)));
    if let Some(ptx) = gpu {
        stages.note("ptx", json!(format!("{}/{}", ptx.assembled, ptx.groups)));
        stages.note("ran", json!(ptx.ran));
        stages.note("skipped", json!(ptx.skipped));
        stages.note("interpreted", json!(format!("{}/{}", ptx.ran, ptx.ran + ptx.skipped)));
        tally.error = tally.error.max(ptx.error);
        if ptx.aliased > 0 {
            let bytes = format!("{} → {} bytes", ptx.written.0, ptx.written.1);
            stages.note("in_place", json!(format!("{}/{}: {bytes}", ptx.in_place, ptx.aliased)));
        }
        tally.wrong += ptx.failed;
        ptx.why.into_iter().for_each(|(why, n)| *tally.why.entry(format!("GPU: {why}")).or_default() += n);
    }
    let begin = std::time::Instant::now();
    let (jit, names) = stages.run("jit", || compile(compiler, &fused))?;
    stages.note("jit", json!(begin.elapsed().as_secs_f64()));
    stages.note("distinct", json!(names.values().collect::<std::collections::BTreeSet<_>>().len()));
    for step in &fused {
        let problems = check(step, &jit, &names, &traced);
        if let Err(why) = problems.map(|error| tally.error = tally.error.max(error)) {
            tally.wrong += 1;
            *tally.why.entry(format!("{}: {why}", step.kernel.name)).or_default() += 1;
            if args.show {
                println!("{}: {why}\n{}", case.name, step.kernel.mlir);
            }
        }
    }
    stages.note("groups", json!(tally.groups));
    stages.note("fused", json!(fused.len()));
    stages.note("library", json!(tally.library));
    stages.note("evaluated", json!(tally.evaluated));
    stages.note("wrong", json!(tally.wrong));
    stages.note("error", json!(tally.error));
    let why: Vec<String> = tally.why.iter().map(|(w, n)| format!("{n}× {w}")).collect();
    stages.note("why", json!(why.join("; ")));
    stages.run("kernels", || match tally.wrong {
        0 => Ok(()),
        n => Err(Problem::wrong(format!("{n} kernels: {}", why.join("; ")))),
    })
}

/// The values of a run, and of the symbols.
pub(crate) struct Traced {
    pub(crate) values: BTreeMap<ValueId, TensorData>,
    pub(crate) env: Env,
}

fn trace(
    module: &Module,
    function: &Function,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<Traced, Problem> {
    let graph = &function.graph;
    let mut traced = Traced { values: BTreeMap::new(), env: Env::default() };
    for (v, (name, kind)) in graph.arguments.iter().zip(&function.arguments) {
        let initial = || match kind {
            djinn::ir::ArgumentKind::State { initial: Some(weight) } => {
                Some(module.weights.get(weight)?.data.as_ref()?.1.clone())
            }
            _ => None,
        };
        if let Some(value) = inputs.get(&**name).cloned().or_else(initial) {
            traced.env.bind_shape(name, graph.ty(*v), value.shape())?;
            traced.values.insert(*v, value);
        }
    }
    let mut found = Vec::new();
    djinn::interp::run_traced(module, &function.name, inputs, &mut |_, op, results| {
        found.extend(op.results.iter().copied().zip(results.iter().cloned()));
    })?;
    for (v, value) in found {
        // Fresh symbols get their sizes here; what is bound agrees.
        let _ = traced.env.bind_shape("a result", graph.ty(v), value.shape());
        traced.values.insert(v, value);
    }
    Ok(traced)
}

fn value(graph: &Graph, order: &[OpId], r: ValueRef) -> Option<ValueId> {
    match r {
        ValueRef::Argument(n) => graph.arguments.get(n as usize).copied(),
        ValueRef::Result { op, index } => {
            graph.op(*order.get(op as usize)?).results.get(index as usize).copied()
        }
    }
}

/// Numbers, in those of a step, of the operands and results of a kernel that begin at the same byte.
fn aliases(
    kernel: &Kernel,
    (reads, step_reads): (&[ValueId], &[ValueId]),
    (writes, step_writes): (&[ValueId], &[ValueId]),
) -> Vec<(usize, usize)> {
    let same = |r: &Operand, w: &Operand| r.view.buffer == w.view.buffer && r.view.offset == w.view.offset;
    let mut out = Vec::new();
    for (i, r) in reads.iter().enumerate() {
        for (_, w) in writes.iter().enumerate().filter(|(j, _)| same(&kernel.reads[i], &kernel.writes[*j])) {
            let place = |values: &[ValueId], v: &ValueId| values.iter().position(|own| own == v);
            out.extend(place(step_reads, r).zip(place(step_writes, w)));
        }
    }
    out
}

/// Lowers the fused steps of a kernel of the plan.
fn lower<'a>(
    graph: &'a Graph,
    order: &[OpId],
    kernel: &Kernel,
    fused: &mut Vec<Fused<'a>>,
    tally: &mut Tally,
) {
    let ops: Vec<OpId> = kernel.ops.iter().filter_map(|o| order.get(*o as usize).copied()).collect();
    let list = |operands: &[Operand]| -> Vec<ValueId> {
        operands.iter().filter_map(|o| value(graph, order, o.value)).collect()
    };
    let (reads, writes) = (list(&kernel.reads), list(&kernel.writes));
    let group = Group { graph, ops: &ops, reads: &reads, writes: &writes };
    for step in djinn_kernel::steps(&group) {
        match step {
            Step::Library { .. } => tally.library += 1,
            Step::Evaluate { op } => {
                tally.evaluated += 1;
                let name = graph.op(op).kind.name();
                *tally.why.entry(format!("'{name}' evaluated")).or_default() += 1;
            }
            Step::Fused { ops, reads: step_reads, writes: step_writes } => {
                let aliases = aliases(kernel, (&reads, &step_reads), (&writes, &step_writes));
                let group = Group { graph, ops: &ops, reads: &step_reads, writes: &step_writes };
                let name = format!("k{}", fused.len());
                match djinn_kernel::lower_host(&group, &name, &aliases) {
                    Ok(kernel) => {
                        let aliases =
                            aliases.iter().map(|(r, w)| (step_reads[*r], step_writes[*w])).collect();
                        fused.push(Fused { kernel, graph, aliases });
                    }
                    Err(e) => {
                        tally.evaluated += 1;
                        let kinds: Vec<&str> = ops.iter().map(|o| graph.op(*o).kind.name()).collect();
                        *tally.why.entry(format!("refused [{}]: {e}", kinds.join(" "))).or_default() += 1;
                    }
                }
            }
        }
    }
}

/// What the GPU code of a case came to.
#[derive(Default)]
struct Assembled {
    groups: u64,
    assembled: u64,
    failed: u64,
    /// Groups with operands and results in the same memory, and how many of them are lowered so.
    aliased: u64,
    in_place: u64,
    /// Kernels that were interpreted, and those that take too long for it.
    ran: u64,
    skipped: u64,
    error: f64,
    /// Bytes that those groups write: to other memory, and in place where that is possible.
    written: (i64, i64),
    why: BTreeMap<String, u64>,
}

/// Lowers every group for a GPU, assembles what is made, and runs it on the values of the run.
fn assemble(
    graph: &Graph,
    order: &[OpId],
    kernels: &[Kernel],
    traced: &Traced,
    (compiler, args): (&Compiler, &Args),
) -> Result<Assembled, Problem> {
    let mut out = Assembled::default();
    let mut known: BTreeMap<String, Result<(), String>> = BTreeMap::new();
    let written = |kernel: &djinn_kernel::GpuKernel| -> i64 {
        kernel.launches.iter().filter_map(|l| traced.env.eval(&l.bytes_written)).sum()
    };
    for kernel in kernels {
        out.groups += 1;
        let ops: Vec<OpId> = kernel.ops.iter().filter_map(|o| order.get(*o as usize).copied()).collect();
        let list = |operands: &[Operand]| -> Vec<ValueId> {
            operands.iter().filter_map(|o| value(graph, order, o.value)).collect()
        };
        let (reads, writes) = (list(&kernel.reads), list(&kernel.writes));
        let kinds = || ops.iter().map(|o| graph.op(*o).kind.name()).collect::<Vec<_>>().join(" ");
        let group = Group { graph, ops: &ops, reads: &reads, writes: &writes };
        let mut lowered = match djinn_kernel::lower_gpu(&group, "k") {
            Ok(kernel) => vec![(kernel, Vec::new())],
            Err(e) => {
                *out.why.entry(format!("refused [{}]: {e}", kinds())).or_default() += 1;
                continue;
            }
        };
        let aliases = aliases(kernel, (&reads, &reads), (&writes, &writes));
        if !aliases.is_empty() {
            out.aliased += 1;
            match djinn_kernel::lower_gpu_aliased(&group, "k", &aliases) {
                Ok(kernel) => {
                    out.in_place += 1;
                    let values = aliases.iter().map(|(r, w)| (reads[*r], writes[*w])).collect();
                    lowered.push((kernel, values));
                }
                Err(e) => *out.why.entry(format!("not in place [{}]: {e}", kinds())).or_default() += 1,
            }
            out.written.0 += lowered.first().map_or(0, |(k, _)| written(k));
            out.written.1 += lowered.last().map_or(0, |(k, _)| written(k));
        }
        let result = lowered.iter().try_for_each(|(kernel, aliases)| {
            let text = format!("gpu.module @kernels {{\n{}}}\n", kernel.mlir);
            if let Some(known) = known.get(&text) {
                return known.clone().map_err(|why| (why, text));
            }
            let result = try_one(&mut out, (kernel, &text, aliases), traced, compiler, args);
            known.insert(text.clone(), result.clone());
            result.map_err(|why| (why, text))
        });
        match result {
            Ok(()) => out.assembled += 1,
            Err((why, text)) => {
                out.failed += 1;
                *out.why.entry(format!("[{}]: {}", kinds(), short(&why, 300))).or_default() += 1;
                if args.show {
                    println!("{why}\n{text}");
                }
            }
        }
    }
    Ok(out)
}

/// Assembles and interprets a kernel.
fn try_one(
    out: &mut Assembled,
    (kernel, text, aliases): (&djinn_kernel::GpuKernel, &str, &[(ValueId, ValueId)]),
    traced: &Traced,
    compiler: &Compiler,
    args: &Args,
) -> Result<(), String> {
    let ptx = compiler.ptx(text, &args.chip).map_err(|e| e.to_string())?;
    args.ptxas.as_ref().map_or(Ok(()), |ptxas| assemble_one(&ptx, ptxas, &args.chip))?;
    // Every other kernel runs its blocks and warps from the last to the first.
    let reverse = (out.ran + out.skipped) % 2 == 1;
    match interpret::interpret(kernel, &ptx, aliases, traced, (args.instructions, reverse))? {
        Outcome::TooLong => out.skipped += 1,
        Outcome::Ran { error } => {
            out.ran += 1;
            out.error = out.error.max(error);
        }
    }
    Ok(())
}

fn assemble_one(ptx: &str, ptxas: &std::path::Path, chip: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (from, to) = (dir.path().join("k.ptx"), dir.path().join("k.cubin"));
    std::fs::write(&from, ptx).map_err(|e| e.to_string())?;
    let run =
        std::process::Command::new(ptxas).arg(format!("-arch={chip}")).arg(&from).arg("-o").arg(&to).output();
    let run = run.map_err(|e| e.to_string())?;
    if run.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&run.stderr).into_owned()) }
}

/// Code for all steps; equal texts are compiled once.
fn compile(compiler: &Compiler, fused: &[Fused]) -> Result<(Jit, BTreeMap<String, String>), Problem> {
    let mut names = BTreeMap::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut text = String::new();
    for step in fused {
        let name = &step.kernel.name;
        let body = step.kernel.mlir.replacen(&format!("@{name}("), "@(", 1);
        let shared = known.entry(body).or_insert_with(|| {
            text.push_str(&step.kernel.mlir);
            name.clone()
        });
        names.insert(name.clone(), shared.clone());
    }
    Ok((compiler.jit(&text)?, names))
}

/// Runs a step on the values of the run; gives the largest error relative to the largest expected magnitude.
fn check(step: &Fused, jit: &Jit, names: &BTreeMap<String, String>, traced: &Traced) -> Result<f64, String> {
    let mut buffers: Vec<Vec<u64>> = Vec::new();
    let mut sizes: Vec<i64> = Vec::new();
    let bytes_of = |v: &ValueId| traced.values.get(v).map(TensorData::bytes).ok_or("a value is missing");
    let fill = |bytes: &[u8], room: usize| {
        let mut words = vec![0xa5a5_a5a5_a5a5_a5a5u64; room.div_ceil(8) + 8];
        for (i, b) in bytes.iter().enumerate() {
            let shift = 8 * (i % 8);
            words[i / 8] = words[i / 8] & !(0xff << shift) | u64::from(*b) << shift;
        }
        words
    };
    let size = |d: &Dim| traced.env.eval(d).ok_or_else(|| format!("the size {d} is not known"));
    for param in &step.kernel.params {
        match param {
            Param::Read(v) => buffers.push(fill(bytes_of(v)?, bytes_of(v)?.len())),
            Param::Write(v) => {
                let shared =
                    step.aliases.iter().find(|(_, w)| w == v).map(|(r, _)| bytes_of(r)).transpose()?;
                buffers.push(fill(shared.unwrap_or_default(), bytes_of(v)?.len()));
            }
            Param::Scratch { elements, dtype } => {
                buffers.push(fill(&[], usize::try_from(size(elements)?).unwrap_or(0) * dtype.size()));
            }
            Param::Size(dim) => sizes.push(size(dim)?),
        }
    }
    let mut pointers: Vec<*mut u64> = buffers.iter_mut().map(Vec::as_mut_ptr).collect();
    let mut args: Vec<*mut c_void> = pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()).collect();
    args.extend(sizes.iter_mut().map(|n| std::ptr::from_mut(n).cast::<c_void>()));
    let function = names.get(&step.kernel.name).and_then(|n| jit.function(n)).ok_or("it was not compiled")?;
    #[allow(unsafe_code, reason = "compiled code is called")]
    // SAFETY: one pointer or size for each parameter, in order, each to as much memory as its value takes.
    unsafe {
        function.call(&mut args);
    }
    let mut worst = 0.0f64;
    for (i, param) in step.kernel.params.iter().enumerate() {
        let Param::Write(v) = param else { continue };
        let expected = traced.values.get(v).ok_or("a value is missing")?;
        let actual: Vec<u8> =
            buffers[i].iter().flat_map(|w| w.to_le_bytes()).take(expected.bytes().len()).collect();
        let actual =
            TensorData::new(expected.dtype(), expected.shape().to_vec(), actual).ok_or("a shape is wrong")?;
        worst = worst.max(judge(expected, &actual)?);
        let kept = buffers[i].iter().rev().take(7).all(|w| *w == 0xa5a5_a5a5_a5a5_a5a5);
        if !kept {
            return Err("it wrote past the end".into());
        }
    }
    let _ = step.graph;
    Ok(worst)
}

/// The largest error relative to the largest finite magnitude.
pub(crate) fn judge(expected: &TensorData, actual: &TensorData) -> Result<f64, String> {
    match compare(expected, actual, Tolerance::Reassoc) {
        Ok(report) => {
            let magnitudes = (0..expected.numel()).filter_map(|i| expected.get_f64(i)).map(f64::abs);
            let scale = magnitudes.filter(|m| m.is_finite()).fold(0.0, f64::max);
            Ok(if scale > 0.0 { report.max_abs / scale } else { report.max_abs })
        }
        Err(e) => match *e {
            Mismatch::Values(report) => Err(report.to_string()),
            other => Err(other.to_string()),
        },
    }
}
