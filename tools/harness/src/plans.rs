//! `djinn-harness plans`: plans of models, checked, run on the host runtime, and broken on purpose.

use crate::case::{self, Case};
use crate::judge;
use crate::stage::{self, Problem, Stages, Status};
use crate::table::{Table, number, save, short};
use djinn::device::{Profile, Target, Topology};
use djinn::interp::Outputs;
use djinn::ir::{Module, TensorData};
use djinn::plan_data::{Action, ArenaKind, Content, Entry, Granularity, Plan, mutate};
use djinn::runtime::{RunOptions, Runtime};
use djinn::{OptimizeOptions, PlanRequest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Options.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of cases, or folders of such folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Formats to run
    #[arg(long, value_delimiter = ',', default_value = "pt2,onnx")]
    formats: Vec<String>,
    /// Numbers of devices; several get capacities that force a split
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    devices: Vec<usize>,
    /// Numbers of devices that together cannot hold the weights: some stay on the host and are copied in every run
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    stream_weights: Vec<usize>,
    /// Passes before planning (default: those of djinn-opt)
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Also change each plan in up to this many ways: the checker must refuse what changes the meaning
    #[arg(long, value_name = "N", default_value_t = 0)]
    mutants: usize,
    /// Only wrong results and crashes of the cases named in this file, one a line, make the run fail
    #[arg(long, value_name = "FILE")]
    enforce: Option<PathBuf>,
    /// What the summary calls the run
    #[arg(long, default_value = "plans")]
    label: String,
    /// Only print the summary and what is wrong
    #[arg(long)]
    brief: bool,
    /// Write the records here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

/// Runs every case on every number of devices; gives false if one fails.
pub(crate) fn main(args: &Args) -> Result<bool, String> {
    stage::record_panics();
    let mut t = Table::new(&[
        "model",
        "format",
        ">devices",
        "status",
        ">kernels",
        ">copies",
        ">streams",
        ">events",
        ">arena bytes",
        ">bound",
        ">gap %",
        ">launches by kernel, engine",
        ">activations by kernel, engine",
        ">mutants",
        ">refused",
        ">harmless",
        "message",
    ]);
    let enforced = enforced(args)?;
    let (mut records, mut failures, mut fatal, mut pinned) = (Vec::new(), 0, 0, 0);
    let (mut mutants, mut refused, mut harmless, mut missed, mut streamed) = (0, 0, 0, 0, 0);
    for case in case::find(&args.dirs, &args.formats)? {
        for record in run(&case, args) {
            let failed = record["status"] != "ok";
            failures += usize::from(failed);
            fatal += usize::from(failed && is_fatal(&record, enforced.as_ref()));
            let count = |key: &str| record[key].as_u64().unwrap_or(0);
            pinned += usize::from(record["pinned"].is_boolean());
            mutants += count("mutants");
            harmless += count("harmless");
            refused += count("refused");
            missed += count("missed");
            streamed += usize::from(count("streamed") > 0);
            if failed || !args.brief {
                t.row(row(&record));
            }
            records.push(record);
        }
    }
    let summary = format!(
        "{}: {} of {} run and agree, {failures} failed ({pinned} cut by pins, not by capacity; {streamed} \
         with streamed weights); mutants: {mutants}, \
         refused {refused} ({harmless} of them computed the same), accepted and wrong {missed}",
        args.label,
        records.len() - failures,
        records.len()
    );
    println!("{}{summary}", t.render());
    save(args.json.as_deref(), &records.iter().map(|r| format!("{r}\n")).collect::<String>())?;
    save(args.table.as_deref(), &format!("{}{summary}\n", t.render()))?;
    Ok(fatal == 0 && missed == 0)
}

/// The cases whose wrong results count; all failures of all cases do if there is no such list.
fn enforced(args: &Args) -> Result<Option<BTreeSet<String>>, String> {
    let Some(path) = &args.enforce else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Some(text.split_whitespace().map(str::to_owned).collect()))
}

fn is_fatal(record: &Value, enforced: Option<&BTreeSet<String>>) -> bool {
    enforced.is_none_or(|names| {
        let listed = record["case"].as_str().is_some_and(|c| names.contains(c));
        listed && (record["status"] == Status::Wrong.word() || record["status"] == Status::Crash.word())
    })
}

fn row(r: &Value) -> Vec<String> {
    let text = |key: &str| r[key].as_str().unwrap_or("").to_owned();
    let (used, bound) = (r["arena"].as_f64().unwrap_or(0.0), r["bound"].as_f64().unwrap_or(0.0));
    let gap = if bound > 0.0 { format!("{:.2}", (used / bound - 1.0) * 100.0) } else { String::new() };
    let counts = ["kernels", "copies", "streams", "events", "arena", "bound"].map(|k| number(&r[k], 0));
    let mut cells = vec![text("case"), text("format"), number(&r["devices"], 0), text("status")];
    cells.extend(counts);
    cells.push(gap);
    let both = |of: &str| match r[of].as_array().map(Vec::as_slice) {
        Some([kernels, engines]) => format!("{}, {}", number(kernels, 0), number(engines, 0)),
        _ => String::new(),
    };
    cells.extend(["launches", "activations"].map(both));
    cells.extend(["mutants", "refused", "harmless"].map(|k| number(&r[k], 0)));
    cells.push(short(r["split"].as_str().or(r["message"].as_str()).unwrap_or(""), 160));
    cells
}

/// A record for each number of devices.
fn run(case: &Case, args: &Args) -> Vec<Value> {
    let mut split: Option<Needs> = None;
    let mut records = Vec::new();
    let mut sites: Vec<Site> = args.devices.iter().map(|devices| Site::Devices(*devices)).collect();
    sites.extend(args.devices.contains(&1).then_some(Site::Engines));
    sites.extend(args.stream_weights.iter().map(|devices| Site::Streaming(*devices)));
    for site in sites {
        let mut stages = Stages::default();
        let devices = json!(site.devices());
        for (key, value) in [("case", json!(case.name)), ("format", json!(case.format)), ("devices", devices)]
        {
            stages.note(key, value);
        }
        let needed = run_on(&mut stages, case, args, site, split);
        split = split.or(needed);
        records.push(stages.finish());
    }
    records
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// So many devices; of several, none can hold the whole model.
    Devices(usize),
    /// A GPU, by the entries whose launches are whole engine regions.
    Engines,
    /// So many devices that cannot hold the whole model together, and a host that keeps the rest of the weights.
    Streaming(usize),
}

impl Site {
    pub(crate) fn devices(self) -> usize {
        match self {
            Site::Devices(devices) | Site::Streaming(devices) => devices,
            Site::Engines => 1,
        }
    }
}

/// Plans and runs a case on a site; gives the bytes that one device needs.
fn run_on(stages: &mut Stages, case: &Case, args: &Args, site: Site, needed: Option<Needs>) -> Option<Needs> {
    let model = stages.run("import", || Ok(djinn::read(&case.model)?))?;
    let data = stages.run("data", || Ok(case::read_data(&case.dir)?))?;
    let feeds = model.module.functions.first().map(|f| case::feeds(f, &data)).unwrap_or_default();
    let values = feeds.values(&data);
    let mut module = model.module;
    let (plan, how) = stages.run("plan", || {
        let sizes = sizes(&module, &values)?;
        let pipeline = args.pipeline.clone().unwrap_or_else(|| OptimizeOptions::default().pipeline);
        djinn::optimize(&mut module, &OptimizeOptions { pipeline, ..OptimizeOptions::default() }, None)?;
        planned(&mut module, site, needed, &sizes)
    })?;
    note_plan(stages, &plan);
    match how {
        Split::Capacity => {}
        Split::Pins => {
            stages.note("pinned", json!(true));
            stages.note("split", json!("split by pins: one operation holds the weights"));
        }
        Split::Streams => {
            let bytes = fetched(&plan);
            stages.note("streamed", json!(bytes));
            stages.note("split", json!(format!("{bytes} B of weights copied in the run")));
        }
        Split::Engines(both) => {
            stages.note("launches", json!(both.launches));
            stages.note("activations", json!(both.activations));
            stages.note("split", json!(both.left));
        }
        Split::Whole(why) => stages.note("split", json!(format!("nothing streamed: {why}"))),
    }
    let module = Arc::new(module);
    stages.run("run", || {
        let outputs = execute(&plan, &module, &values)?;
        judge::judge(&outputs, &data, &feeds, case.format != "onnx")
    })?;
    if args.mutants > 0 {
        let counts = stages.run("mutants", || break_plan(&plan, &module, &values, args.mutants));
        for (key, value) in counts.unwrap_or_default() {
            stages.note(key, json!(value));
        }
    }
    Some(Needs::of(&plan))
}

/// The plan for a site, and how it was made to fit.
pub(crate) fn planned(
    module: &mut Module,
    site: Site,
    needed: Option<Needs>,
    sizes: &BTreeMap<String, Vec<(i64, i64)>>,
) -> Result<(Plan, Split), Problem> {
    match site {
        Site::Devices(devices) => split_plan(module, devices, needed, sizes),
        Site::Streaming(devices) => streamed_plan(module, devices, needed, sizes),
        Site::Engines => engines_plan(module, sizes),
    }
}

/// Bytes that a model needs on one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// Weights and state.
    kept: u64,
    activations: u64,
}

impl Needs {
    /// What the arenas of a plan take.
    pub(crate) fn of(plan: &Plan) -> Needs {
        let arenas =
            |of: fn(ArenaKind) -> bool| plan.arenas.iter().filter(|a| of(a.kind)).map(|a| a.bytes).sum();
        Needs {
            kept: arenas(|k| matches!(k, ArenaKind::Weights | ArenaKind::State)),
            activations: arenas(|k| k == ArenaKind::Activations),
        }
    }

    fn all(self) -> u64 {
        self.kept + self.activations
    }
}

/// How much more than a fair share of weights and state several devices hold: the first that suffices. Single large
/// weights keep some models from being cut more evenly.
const SLACKS: [f64; 4] = [1.3, 1.6, 2.2, 3.0];

/// How a plan was made to fit its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// No device can hold the whole model.
    Capacity,
    /// Operations are pinned to devices: what one operation needs is more than a share.
    Pins,
    /// Weights stay on the host, or values wait there.
    Streams,
    /// It fits one device, and launches whole engines.
    Engines(Both),
    /// No weights can stay on the host, for this reason.
    Whole(String),
}

/// The parts of weights and state that a device which gets the others copied holds: the first that suffices.
const PARTS: [f64; 5] = [0.3, 0.5, 0.7, 0.85, 0.95];

/// Plans for devices that cannot hold the whole model.
fn streamed_plan(
    module: &mut Module,
    devices: usize,
    needed: Option<Needs>,
    sizes: &BTreeMap<String, Vec<(i64, i64)>>,
) -> Result<(Plan, Split), Problem> {
    let needed = needed.ok_or_else(|| Problem::error("the run on one device must come first and succeed"))?;
    let mut refusal = None;
    for part in PARTS {
        let each = needed.activations + (needed.kept as f64 * part / devices as f64) as u64;
        let mut request = request(hosts(devices, Some(each))?, sizes);
        request.stream_weights = true;
        let mut attempt = module.clone();
        match djinn::plan(&mut attempt, &request, None) {
            Ok(planned) => {
                *module = attempt;
                return Ok((shared(planned)?, Split::Streams));
            }
            Err(e) if djinn::MEMORY_REFUSALS.contains(&e.code.as_str()) => refusal = Some(e),
            Err(e) => return Err(e.into()),
        }
    }
    // Two of the largest weights may take as much as all of them.
    let why = refusal.map_or_else(String::new, |e| e.message);
    let plan = split_plan(module, 1, None, sizes)?.0;
    Ok((plan, Split::Whole(why)))
}

/// What the entry of kernels and that of engines launch and need, of the first function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Both {
    launches: Vec<usize>,
    activations: Vec<u64>,
    /// Which engine is launched kernel by kernel, and why.
    left: String,
}

/// Plans for a GPU and leaves the entries of engines alone, where there are any.
fn engines_plan(
    module: &mut Module,
    sizes: &BTreeMap<String, Vec<(i64, i64)>>,
) -> Result<(Plan, Split), Problem> {
    let gpu = Profile::builtin("h100-80").ok_or_else(|| Problem::error("no profile is called h100-80"))?;
    let mut request = request(Target::single(gpu), sizes);
    request.engine_entries = true;
    let planned = djinn::plan(module, &request, None)?;
    let remarks = planned.outcome.remarks.iter().filter(|r| r.pass == "planner");
    let of_rule =
        |rule: &'static str| remarks.clone().find(move |r| r.rule == rule).map(|r| r.message.clone());
    if let Some(given_up) = of_rule("engine entries") {
        return Err(Problem::wrong(given_up));
    }
    let mut both = Both { left: of_rule("engine").unwrap_or_default(), ..Both::default() };
    let plan = shared(planned)?;
    let function = plan.entries.first().map(|e| e.function.clone()).unwrap_or_default();
    for entry in plan.entries.iter().filter(|e| e.function == function) {
        both.launches.push(entry.kernels.len());
        both.activations.push(entry.budgets.iter().map(|b| b.activations).sum());
    }
    let plan = engines_alone(plan);
    djinn::verify_plan(&plan, djinn::diag::Culprit::Internal)?;
    Ok((plan, Split::Engines(both)))
}

/// The plan without the entries of kernels for which there is one of engines. What they had in memory is nothing any more.
fn engines_alone(mut plan: Plan) -> Plan {
    let whole = |e: &Entry| e.granularity == Granularity::Engines;
    let same = |a: &Entry, b: &Entry| a.function == b.function && a.symbols == b.symbols;
    let replaced = |e: &Entry| !whole(e) && plan.entries.iter().any(|o| whole(o) && same(o, e));
    let left: Vec<usize> = (0..plan.entries.len()).filter(|n| !replaced(&plan.entries[*n])).collect();
    plan.entries = left.iter().map(|number| plan.entries[*number].clone()).collect();
    for buffer in &mut plan.buffers {
        if let Content::Run { entry } = &mut buffer.content {
            let place = left.iter().position(|number| *number == *entry as usize);
            *entry = place.unwrap_or(0) as u32;
            if place.is_none() {
                (buffer.offset, buffer.bytes) = (0, 0);
            }
        }
    }
    plan
}

/// Bytes of constants that one run copies from hosts.
fn fetched(plan: &Plan) -> u64 {
    let is_constant = |v: &djinn::plan_data::View| {
        matches!(plan.buffers[v.buffer.index()].content, djinn::plan_data::Content::Constant { .. })
    };
    let bytes = |a: &Action| match a {
        Action::Copy { from: djinn::plan_data::Place::Buffer(view), .. } if is_constant(view) => view.bytes,
        _ => 0,
    };
    plan.entries.iter().flat_map(|e| &e.commands).map(|c| bytes(&c.action)).sum()
}

/// Plans for so many devices, none of which can hold the whole model; a model that cannot be cut that way has its
/// operations pinned, each device a run of them.
fn split_plan(
    module: &mut Module,
    devices: usize,
    needed: Option<Needs>,
    sizes: &BTreeMap<String, Vec<(i64, i64)>>,
) -> Result<(Plan, Split), Problem> {
    for slack in SLACKS {
        let request = request(target(devices, needed, slack)?, sizes);
        let mut attempt = module.clone();
        match djinn::plan(&mut attempt, &request, None) {
            Ok(planned) => {
                *module = attempt;
                return Ok((shared(planned)?, Split::Capacity));
            }
            Err(e) if devices > 1 && djinn::MEMORY_REFUSALS.contains(&e.code.as_str()) => {}
            Err(e) => return Err(e.into()),
        }
    }
    pin(module, devices);
    let request = request(hosts(devices, None)?, sizes);
    Ok((shared(djinn::plan(module, &request, None)?)?, Split::Pins))
}

/// The plan, if it did not have to be made again without views and results in place: that hides a mistake.
fn shared(planned: djinn::Planned) -> Result<Plan, Problem> {
    match planned.outcome.remarks.iter().find(|r| r.pass == "planner" && r.rule == "sharing") {
        Some(given_up) => Err(Problem::wrong(given_up.message.clone())),
        None => Ok(planned.plan),
    }
}

fn request(target: Target, sizes: &BTreeMap<String, Vec<(i64, i64)>>) -> PlanRequest {
    let mut request = PlanRequest::new(target);
    request.optimize.pipeline = "builtin.module()".into();
    request.sizes = sizes.clone();
    request
}

/// Pins the operations that run to devices, as many to each.
fn pin(module: &mut Module, devices: usize) {
    for function in &mut module.functions {
        let ahead = djinn::ir::walk::known_before_runs(function);
        let graph = &function.graph;
        let known = |op: &djinn::ir::Op| op.results.iter().all(|v| ahead[v.0 as usize]);
        let ids: Vec<_> = graph.ops().filter(|(_, op)| !known(op)).map(|(id, _)| id).collect();
        for (i, id) in ids.iter().enumerate() {
            let name = format!("host:{}", i * devices / ids.len());
            function.graph.annotate(*id, "device", name.as_str());
        }
    }
}

/// So many host devices; of several, none can hold the whole model.
fn target(devices: usize, needed: Option<Needs>, slack: f64) -> Result<Target, Problem> {
    let host = Profile::builtin("host").ok_or_else(|| Problem::error("no profile is called host"))?;
    if devices == 1 {
        return Ok(Target::single(host));
    }
    let needed = needed.ok_or_else(|| Problem::error("the run on one device must come first and succeed"))?;
    // All activations, and a little more than a fair share of the rest: less than one device needs.
    let share = needed.kept as f64 * slack / devices as f64;
    let each = ((needed.activations as f64 + share) as u64).min(needed.all() - 1);
    hosts(devices, Some(each))
}

/// So many host devices, with so much memory each.
fn hosts(devices: usize, each: Option<u64>) -> Result<Target, Problem> {
    let memory = each.map_or_else(String::new, |bytes| format!("memory_bytes = {bytes}\n"));
    let text = format!("[[device]]\nprofile = \"host\"\ncount = {devices}\n{memory}");
    Ok(Target::new(Topology::parse(&text, "harness")?))
}

/// The sizes of the symbols in the recorded inputs.
pub(crate) fn sizes(
    module: &Module,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<BTreeMap<String, Vec<(i64, i64)>>, Problem> {
    let mut env = djinn::interp::Env::default();
    for f in &module.functions {
        for (v, (name, _)) in f.graph.arguments.iter().zip(&f.arguments) {
            if let Some(value) = inputs.get(&**name) {
                env.bind_shape(name, f.graph.ty(*v), value.shape())?;
            }
        }
    }
    let known = djinn::ir::walk::symbols(module);
    let bound = env.iter().filter(|(s, _)| known.contains(s));
    Ok(bound.map(|(s, size)| (s.name().to_owned(), vec![(size, size)])).collect())
}

fn note_plan(stages: &mut Stages, plan: &Plan) {
    let commands = plan.entries.iter().flat_map(|e| &e.commands);
    let copies = commands.filter(|c| matches!(c.action, Action::Copy { .. })).count();
    let sum = |f: fn(&djinn::plan_data::Entry) -> usize| plan.entries.iter().map(f).sum::<usize>();
    let arena: u64 = plan.arenas.iter().filter(|a| a.kind == ArenaKind::Activations).map(|a| a.bytes).sum();
    // Entries share the arena, of which one runs at a time.
    let bounds = plan.entries.iter().map(|e| e.budgets.iter().map(|b| b.activations_bound).sum::<u64>());
    let bound = bounds.max().unwrap_or(0);
    stages.note("kernels", json!(sum(|e| e.kernels.len())));
    stages.note("copies", json!(copies));
    stages.note("streams", json!(sum(|e| e.streams.len())));
    stages.note("events", json!(sum(|e| e.events as usize)));
    stages.note("arena", json!(arena));
    stages.note("bound", json!(bound));
}

/// Runs a plan with poison and race detection; gives what the function gives.
fn execute(
    plan: &Plan,
    module: &Arc<Module>,
    inputs: &BTreeMap<String, TensorData>,
) -> Result<Outputs, Problem> {
    let function =
        module.entries().next().ok_or_else(|| Problem::error("the module has no entry function"))?;
    let mut runtime = Runtime::host(Arc::new(plan.clone()), module.clone(), RunOptions::checking())?;
    let (output, outputs) = djinn::execute(&mut runtime, &function.name, inputs)?;
    match output.races.first() {
        Some(race) => Err(Problem::wrong(format!("race: {race}"))),
        None => Ok(outputs),
    }
}

/// Changes a plan in many ways. Whatever the checker accepts must still compute the same; what it refuses need not
/// fail, but is counted as harmless if it does not.
fn break_plan(
    plan: &Plan,
    module: &Arc<Module>,
    inputs: &BTreeMap<String, TensorData>,
    most: usize,
) -> Result<Vec<(&'static str, u64)>, Problem> {
    let expected = execute(plan, module, inputs)?;
    let all = mutate::mutations(plan);
    let step = (all.len() / most.max(1)).max(1);
    let (mut tried, mut refused, mut harmless, mut missed) = (0, 0, 0, 0);
    for mutation in all.iter().step_by(step).take(most) {
        let mutant = mutation.apply(plan);
        tried += 1;
        let accepted = djinn::plan_data::check(&mutant).is_ok() && djinn::conforms(&mutant, module).is_ok();
        let same = match execute(&mutant, module, inputs) {
            Ok(outputs) => outputs == expected,
            Err(p) if p.status == Status::Crash => return Err(p),
            Err(_) => false,
        };
        match (accepted, same) {
            (true, false) => {
                missed += 1;
                eprintln!("accepted and wrong: {mutation}");
            }
            (true, true) => {}
            (false, true) => {
                refused += 1;
                harmless += 1;
            }
            (false, false) => refused += 1,
        }
    }
    Ok(vec![("mutants", tried), ("refused", refused), ("harmless", harmless), ("missed", missed)])
}
