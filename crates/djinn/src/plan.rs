//! Planning: from a module to an executable plan that an independent checker has accepted.

use crate::optimize::{OptimizeOptions, Outcome, Watch, optimize_and};
use djinn_device::Target;
use djinn_diag::{Culprit, Diagnostic, Remark, RemarkKind, Result, input, internal};
use djinn_ir::{Function, Module, Symbol};
use djinn_pack::Limits;
use djinn_plan::{Granularity, Plan};
use djinn_planner::{EntrySpec, PlanOptions, SizeRange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The passes that prepare an optimised module for planning.
pub const PLANNING_PASSES: &str = "phase-detect,repeats,colocate,partition,lifetime,streams";

/// Entries of one function, at most: every combination of size ranges is one.
const MAX_ENTRIES: usize = 64;

/// What is planned.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// Devices, links, objective and limits.
    pub target: Target,
    /// Ranges of sizes by symbol; several ranges (buckets) give an entry of the plan each.
    pub sizes: BTreeMap<String, Vec<(i64, i64)>>,
    /// Plan only the functions of this phase.
    pub phase: Option<String>,
    /// Scopes of modules and the devices that their operations are pinned to; the first that fits counts.
    pub pins: Vec<(String, String)>,
    /// Bring KV caches that are inputs to the device and back on every run, instead of keeping them there, where each takes
    /// one buffer that the entries of all functions share: then a run need not be given what the one before has left.
    pub copy_caches: bool,
    /// Keep weights for which the devices have no room in the memory of their hosts, and copy them in every run. Without
    /// it such a model is refused: it takes longer by orders of magnitude than one that fits.
    pub stream_weights: bool,
    /// On GPUs, also make an entry for every function and range of sizes whose launches are whole engine regions, behind all
    /// entries whose launches are kernels. There is none where no engine can hold anything, or where devices have no room
    /// for it.
    pub engine_entries: bool,
    /// The passes before the planning passes, and their limits; its target is that of the request.
    pub optimize: OptimizeOptions,
}

impl PlanRequest {
    /// A request for a target with everything else as it is by default.
    pub fn new(target: Target) -> Self {
        PlanRequest {
            target,
            sizes: BTreeMap::new(),
            phase: None,
            pins: Vec::new(),
            copy_caches: false,
            stream_weights: false,
            engine_entries: false,
            optimize: OptimizeOptions::default(),
        }
    }
}

/// A plan and what was done for it.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What the passes did.
    pub outcome: Outcome,
}

/// Optimises the module, annotates it and makes its plan. The plan is given out only if the independent checker
/// accepts it and it conforms to the module.
///
/// # Errors
/// Whatever keeps passes and planner from their work; `plan.capacity` and `plan.unbound` are the common ones.
pub fn plan(module: &mut Module, request: &PlanRequest, watch: Option<Watch>) -> Result<Planned> {
    check_sizes(module, request)?;
    check_ranges(request)?;
    check_pins(module, request)?;
    crate::sources::note(module);
    let mut target = request.target.clone();
    for (symbol, ranges) in &request.sizes {
        if let Some(largest) = ranges.iter().map(|(_, max)| *max).max() {
            target.sizes.insert(symbol.clone(), largest);
        }
    }
    let alone = target.topology.devices().len() == 1 && !request.stream_weights;
    let planning = planning_passes(&request.pins, Estimate::ATTEMPTS[0], 0)?;
    let further = if alone { planning.as_str() } else { "" };
    let passes = OptimizeOptions { target: Some(Arc::new(target.clone())), ..request.optimize.clone() };
    let mut outcome = optimize_and(module, &passes, further, watch)?;
    if !alone {
        return distribute(module, &target, request, outcome);
    }
    let plan = assemble(module, &target, request, Limits::default(), &mut outcome)?;
    djinn_planner::capacities(&plan)?;
    Ok(Planned { plan, outcome })
}

/// What placement reckons with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// How the bytes of activations are estimated: `peak` or `least`.
    pub(crate) activations: &'static str,
    /// May weights stay on the host?
    pub(crate) stream_weights: bool,
}

impl Estimate {
    /// What is tried in this order until something fits.
    const ATTEMPTS: [Estimate; 2] = [
        Estimate { activations: "peak", stream_weights: false },
        Estimate { activations: "least", stream_weights: false },
    ];
}

/// [`PLANNING_PASSES`] with the pins, the estimate, and bytes of activations besides it as options of `colocate`.
fn planning_passes(pins: &[(String, String)], estimate: Estimate, spare: u64) -> Result<String> {
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "._-:@/".contains(c));
    let mut texts = Vec::new();
    for (scope, device) in pins {
        if scope.contains(':') || device.is_empty() || !plain(scope) || !plain(device) {
            let message = format!("'{scope}' cannot be pinned to '{device}'");
            return Err(input("plan.pin", message)
                .help("a pin is the scope of a module, such as model.layers.0, and the name of a device"));
        }
        texts.push(format!("{scope}:{device}"));
    }
    let pins = if texts.is_empty() { String::new() } else { format!(" pin={}", texts.join(",")) };
    let Estimate { activations, stream_weights } = estimate;
    let spare = if spare > 0 { format!(" spare={spare}") } else { String::new() };
    let options =
        format!("colocate{{activations={activations} stream-weights={stream_weights}{spare}{pins}}}");
    Ok(PLANNING_PASSES.replacen("colocate", &options, 1))
}

/// Codes of the refusals of a model that does not fit its devices.
pub const MEMORY_REFUSALS: [&str; 3] = ["colocate.memory", "lifetime.memory", "plan.capacity"];

/// Is this the refusal of a model that does not fit its devices?
pub(crate) fn refused_for_memory(error: &Diagnostic) -> bool {
    MEMORY_REFUSALS.contains(&error.code.as_str())
}

/// How often devices are chosen anew because the plan did not fit.
const MAX_ROUNDS: usize = 4;

/// Plans for several devices, or with streamed weights. Placement reckons with an estimate of the activations: first as
/// if every device had the peak of all; if the devices are too small for that, with the least that each needs; then
/// with weights on hosts, if the request admits it ([`crate::streaming`]).
fn distribute(
    module: &mut Module,
    target: &Target,
    request: &PlanRequest,
    mut outcome: Outcome,
) -> Result<Planned> {
    let mut refusal = None;
    let mut made = None;
    // The estimate says how devices share the work: of one there is nothing to share.
    let attempts = if target.topology.devices().len() == 1 { 1 } else { Estimate::ATTEMPTS.len() };
    for estimate in Estimate::ATTEMPTS.into_iter().take(attempts) {
        match distribute_with(module, target, request, estimate) {
            Err(e) if refused_for_memory(&e) => refusal = Some(e),
            result => {
                made = Some(result?);
                break;
            }
        }
    }
    let made = match (made, refusal) {
        (Some(made), _) => made,
        (None, _) if request.stream_weights => crate::streaming::plan(module, target, request)?,
        (None, Some(refusal)) => return Err(refusal),
        (None, None) => return Err(internal("plan.capacity", "no plan was made")),
    };
    *module = made.module;
    outcome.remarks.extend(made.outcome.remarks);
    outcome.statistics.merge(&made.outcome.statistics);
    outcome.run.passes.extend(made.outcome.run.passes);
    Ok(Planned { plan: made.plan, outcome })
}

/// Plans with one estimate. Where the plan then needs more than a device holds, it is made again with that much kept
/// free.
fn distribute_with(
    module: &Module,
    target: &Target,
    request: &PlanRequest,
    estimate: Estimate,
) -> Result<Attempt> {
    let (pins, packing) = (request.pins.clone(), Limits::default());
    let mut setting = Setting { estimate, pins, reserve: 0, spare: 0, packing };
    let mut refusal = None;
    for _ in 0..MAX_ROUNDS {
        let made = match attempt(module, target, request, &setting) {
            Ok(made) => made,
            // A refusal with memory kept free says nothing of the devices as they are.
            Err(e) => return Err(refusal.unwrap_or(e)),
        };
        let overflow = djinn_planner::overflow(&made.plan);
        if overflow == 0 {
            return Ok(made);
        }
        setting.reserve = setting.reserve.saturating_add(overflow);
        refusal = refusal.or(djinn_planner::capacities(&made.plan).err());
    }
    Err(refusal.unwrap_or_else(|| internal("plan.capacity", "no plan was made")))
}

/// What one plan is tried with.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) estimate: Estimate,
    /// Scopes and their devices.
    pub(crate) pins: Vec<(String, String)>,
    /// Bytes of each device that nothing may use.
    pub(crate) reserve: u64,
    /// Bytes of each device that weights may not use, besides the estimate.
    pub(crate) spare: u64,
    /// The search for a packing.
    pub(crate) packing: Limits,
}

/// A plan and the module that it is for; devices may be too small for it.
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    pub(crate) module: Module,
    pub(crate) plan: Plan,
}

/// Makes a plan of an optimised module.
pub(crate) fn attempt(
    module: &Module,
    target: &Target,
    request: &PlanRequest,
    setting: &Setting,
) -> Result<Attempt> {
    let mut planning = planning_passes(&setting.pins, setting.estimate, setting.spare)?;
    let largest = (0..target.topology.devices().len()).map(|d| target.memory_bytes(d)).max().unwrap_or(0);
    let mut memory_limit = Some(largest.saturating_sub(setting.reserve));
    if setting.estimate.stream_weights && setting.reserve > 0 {
        // Copies are listed less early then; what stays on the devices is the same.
        let limit = memory_limit.unwrap_or(largest).max(1);
        planning = planning.replacen("lifetime", &format!("lifetime{{memory-limit={limit}}}"), 1);
        memory_limit = target.memory_limit;
    }
    let passes = OptimizeOptions {
        pipeline: "builtin.module()".into(),
        target: Some(Arc::new(Target { memory_limit, ..target.clone() })),
        ..request.optimize.clone()
    };
    let mut module = module.clone();
    let mut outcome = optimize_and(&mut module, &passes, &planning, None)?;
    let plan = assemble(&module, target, request, setting.packing, &mut outcome)?;
    Ok(Attempt { outcome, module, plan })
}

/// Makes the plan of a module that the planning passes have annotated, and proves it. If entries of engines are asked for
/// and cannot be had, the plan is one of kernels alone, with a remark.
fn assemble(
    module: &Module,
    target: &Target,
    request: &PlanRequest,
    packing: Limits,
    outcome: &mut Outcome,
) -> Result<Plan> {
    let entries = entries(module, request)?;
    if request.engine_entries && has_gpus(target) {
        match with_engines(module, target, &entries, packing) {
            Ok((plan, remarks)) => {
                outcome.remarks.extend(remarks);
                return Ok(plan);
            }
            Err(e) => {
                let message = format!("no entry launches engines as a whole: {} [{}]", e.message, e.code);
                outcome.remarks.push(given_up("engine entries", message));
            }
        }
    }
    of_kernels(module, target, &entries, packing, outcome)
}

/// Can a device of the target run engines?
fn has_gpus(target: &Target) -> bool {
    target.topology.devices().iter().any(|device| device.profile.compute_capability.is_some())
}

/// The plan with an entry of engines for every one of kernels, behind them, and its remarks. Refused if the devices have no
/// room for it.
fn with_engines(
    module: &Module,
    target: &Target,
    entries: &[EntrySpec],
    packing: Limits,
) -> Result<(Plan, Vec<Remark>)> {
    let mut all = entries.to_vec();
    all.extend(entries.iter().map(|e| EntrySpec { granularity: Granularity::Engines, ..e.clone() }));
    let mut remarks = Vec::new();
    let options = PlanOptions { program: crate::program_hash(module), sharing: true, packing };
    let plan = djinn_planner::plan_with(module, target, &all, &options, &mut remarks)?;
    djinn_planner::capacities(&plan)?;
    accept(&plan, module)?;
    Ok((plan, remarks))
}

/// A remark on what a plan goes without.
fn given_up(rule: &str, message: String) -> Remark {
    let (pass, place) = ("planner".into(), String::new());
    Remark { kind: RemarkKind::Missed, pass, rule: rule.into(), place, message }
}

/// Makes a plan and proves it. What shares bytes is the part of a plan that is easiest to get wrong: a plan that is not
/// proved is made again without that.
fn of_kernels(
    module: &Module,
    target: &Target,
    entries: &[EntrySpec],
    packing: Limits,
    outcome: &mut Outcome,
) -> Result<Plan> {
    let make = |sharing: bool, remarks: &mut Vec<Remark>| -> Result<Plan> {
        let program = crate::program_hash(module);
        let options = PlanOptions { program, sharing, packing };
        let plan = djinn_planner::plan_with(module, target, entries, &options, remarks)?;
        // What exceeds a device is no flaw of the plan, and the caller's to deal with.
        if djinn_planner::overflow(&plan) == 0 {
            accept(&plan, module)?;
        }
        Ok(plan)
    };
    let mut remarks = Vec::new();
    let made = make(true, &mut remarks);
    outcome.remarks.extend(remarks);
    match made {
        Err(e) if e.culprit == Culprit::Internal => {
            let message = format!("views and results in place are given up: {} [{}]", e.message, e.code);
            let plan = make(false, &mut Vec::new()).map_err(|_| e)?;
            outcome.remarks.push(given_up("sharing", message));
            Ok(plan)
        }
        result => result,
    }
}

/// Refuses a plan that does not run the module, or is not proved to run.
fn accept(plan: &Plan, module: &Module) -> Result<()> {
    djinn_planner::conforms(plan, module)?;
    verify_plan(plan, Culprit::Internal)
}

/// Proves with the independent checker that a plan may run; `culprit` says whose plan it is.
///
/// # Errors
/// The first violation, with the number of further ones.
pub fn verify_plan(plan: &Plan, culprit: Culprit) -> Result<()> {
    match djinn_plan::check(plan) {
        Ok(_) => Ok(()),
        Err(violations) => {
            let more = violations.len().saturating_sub(1);
            let first = violations.into_iter().next().map(|v| v.diagnostic(culprit));
            let first =
                first.unwrap_or_else(|| internal("plan.check", "the plan was refused without a reason"));
            Err(if more == 0 { first } else { first.help(format!("{more} more violations follow")) })
        }
    }
}

/// Every bound symbol occurs in the module.
fn check_sizes(module: &Module, request: &PlanRequest) -> Result<()> {
    let known = djinn_ir::walk::symbols(module);
    for symbol in request.sizes.keys() {
        if !known.contains(&Symbol::new(symbol)) {
            let names: Vec<&str> = known.iter().map(Symbol::name).collect();
            let error = input("plan.symbol", format!("the model has no symbol '{symbol}'"));
            return Err(match names.as_slice() {
                [] => error.help("all its sizes are fixed"),
                names => error.help(format!("its symbols are {}", names.join(", "))),
            });
        }
    }
    Ok(())
}

/// No size is in two ranges of a symbol: of two entries the plan would never run one.
fn check_ranges(request: &PlanRequest) -> Result<()> {
    for (symbol, ranges) in &request.sizes {
        let mut sorted = ranges.clone();
        sorted.sort_unstable();
        if let Some(both) = sorted.windows(2).find(|w| w[1].0 <= w[0].1) {
            let text = |(min, max): (i64, i64)| match min == max {
                true => format!("{symbol} = {min}"),
                false => format!("{symbol} = {min}..{max}"),
            };
            let message = format!("the ranges {} and {} overlap", text(both[0]), text(both[1]));
            return Err(input("plan.buckets", message)
                .help(format!("ends belong to their range: {symbol}=1..128,129..2048 gives two entries")));
        }
    }
    Ok(())
}

/// Something is within every pinned scope.
fn check_pins(module: &Module, request: &PlanRequest) -> Result<()> {
    let mut scopes = BTreeSet::new();
    for function in &module.functions {
        djinn_ir::walk::for_each_graph(&function.graph, &mut |graph| {
            scopes.extend(graph.ops().filter_map(|(_, op)| op.location.scope.clone()));
        });
    }
    for (pinned, _) in &request.pins {
        let within = |scope: &str| {
            scope.strip_prefix(pinned.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if pinned.is_empty() || scopes.iter().any(|s| within(s)) {
            continue;
        }
        let error = input("plan.pin", format!("no operation of the model is within '{pinned}'"));
        let some: Vec<&str> = scopes.iter().map(|s| &**s).take(4).collect();
        return Err(match some.as_slice() {
            [] => {
                error.help("the file says of no operation which module it is from: only the empty scope fits")
            }
            some => error.help(format!("there are {} scopes, such as {}", scopes.len(), some.join(", "))),
        });
    }
    Ok(())
}

/// The entries of every function that is asked for.
fn entries(module: &Module, request: &PlanRequest) -> Result<Vec<EntrySpec>> {
    let mut entries = Vec::new();
    for function in module.entries() {
        let phase = module.metadata.get(format!("phase.{}", function.name).as_str()).map(ToString::to_string);
        if request.phase.is_some() && request.phase != phase {
            continue;
        }
        let resident = if request.copy_caches { BTreeSet::new() } else { caches(module, function) };
        for sizes in combinations(function, request)? {
            let function = function.name.to_string();
            let (phase, resident) = (phase.clone(), resident.clone());
            entries.push(EntrySpec { function, sizes, phase, resident, ..EntrySpec::default() });
        }
    }
    if entries.is_empty() {
        let phases: BTreeSet<&str> =
            module.metadata.iter().filter(|(k, _)| k.starts_with("phase.")).map(|(_, v)| &**v).collect();
        let phases: Vec<&str> = phases.into_iter().collect();
        let message = format!("no function has the phase '{}'", request.phase.as_deref().unwrap_or(""));
        return Err(input("plan.phase", message).help(format!("phases found: {}", phases.join(", "))));
    }
    Ok(entries)
}

/// Names of the arguments and results of a function that phase detection found to be KV caches.
fn caches(module: &Module, function: &Function) -> BTreeSet<String> {
    let caches = module.caches(function);
    let arguments = caches.arguments.iter().filter_map(|n| function.arguments.get(*n)).map(|(n, _)| n);
    let results = caches.results.iter().filter_map(|n| function.results.get(*n)).map(|(n, _)| n);
    arguments.chain(results).map(ToString::to_string).collect()
}

/// Hash of a program, in hexadecimal digits: what a plan is the plan of.
pub fn program_hash(module: &Module) -> String {
    djinn_ir::program_hash(module).to_string()
}

/// Every combination of the size ranges of the symbols that a function uses.
fn combinations(function: &Function, request: &PlanRequest) -> Result<Vec<Vec<SizeRange>>> {
    let mut used = BTreeSet::new();
    djinn_ir::walk::for_each_dim(&function.graph, &mut |d| {
        d.visit_symbols(&mut |s| {
            used.insert(s.name().to_owned());
        })
    });
    let mut combinations = vec![Vec::new()];
    for (symbol, ranges) in request.sizes.iter().filter(|(s, _)| used.contains(*s)) {
        combinations = combinations
            .into_iter()
            .flat_map(|c: Vec<SizeRange>| {
                ranges.iter().map(move |(min, max)| {
                    let mut c = c.clone();
                    c.push(SizeRange { symbol: symbol.clone(), min: *min, max: *max });
                    c
                })
            })
            .collect();
        if combinations.len() > MAX_ENTRIES {
            let message =
                format!("function '{}' has more than {MAX_ENTRIES} combinations of sizes", function.name);
            return Err(input("plan.buckets", message).help("give fewer ranges"));
        }
    }
    Ok(combinations)
}
