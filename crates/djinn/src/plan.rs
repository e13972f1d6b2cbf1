//! Planning: from a module to an executable plan that an independent checker has accepted.

use crate::optimize::{OptimizeOptions, Outcome, Watch, optimize_and};
use djinn_device::Target;
use djinn_diag::{Culprit, Remark, RemarkKind, Result, input, internal};
use djinn_ir::{Function, Module, Symbol};
use djinn_plan::Plan;
use djinn_planner::{EntrySpec, PlanOptions, SizeRange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The passes that prepare an optimised module for planning.
pub const PLANNING_PASSES: &str = "phase-detect,colocate,partition,lifetime,streams";

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
    /// Bring KV caches that are inputs to the device and back on every run, instead of keeping them there.
    pub copy_caches: bool,
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
    check_pins(module, request)?;
    let mut target = request.target.clone();
    for (symbol, ranges) in &request.sizes {
        if let Some(largest) = ranges.iter().map(|(_, max)| *max).max() {
            target.sizes.insert(symbol.clone(), largest);
        }
    }
    let devices = target.topology.devices().len();
    let planning = planning_passes(&request.pins, "peak")?;
    let further = if devices == 1 { planning.as_str() } else { "" };
    let passes = OptimizeOptions { target: Some(Arc::new(target.clone())), ..request.optimize.clone() };
    let mut outcome = optimize_and(module, &passes, further, watch)?;
    if devices > 1 {
        return distribute(module, &target, request, outcome);
    }
    let plan = assemble(module, &target, request, &mut outcome)?;
    djinn_planner::capacities(&plan)?;
    Ok(Planned { plan, outcome })
}

/// [`PLANNING_PASSES`] with the pins, and the estimate of activations, as options of `colocate`.
fn planning_passes(pins: &[(String, String)], estimate: &str) -> Result<String> {
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
    Ok(PLANNING_PASSES.replacen("colocate", &format!("colocate{{activations={estimate}{pins}}}"), 1))
}

/// How often devices are chosen anew because the plan did not fit.
const MAX_ROUNDS: usize = 4;

/// Plans for several devices. Placement reckons with an estimate of the activations: first as if every device had the
/// peak of all; if the devices are too small for that, with the least that each needs. Where the plan then needs more
/// than a device holds, it is made again with that much kept free.
fn distribute(
    module: &mut Module,
    target: &Target,
    request: &PlanRequest,
    outcome: Outcome,
) -> Result<Planned> {
    let mut refusal = None;
    for estimate in ["peak", "least"] {
        match distribute_with(module, target, request, estimate) {
            Ok((placed, attempt, plan)) => {
                *module = attempt;
                let mut outcome = outcome;
                outcome.remarks.extend(placed.remarks);
                outcome.statistics.merge(&placed.statistics);
                outcome.run.passes.extend(placed.run.passes);
                return Ok(Planned { plan, outcome });
            }
            Err(e) if e.culprit == Culprit::Input => refusal = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(refusal.unwrap_or_else(|| internal("plan.capacity", "no plan was made")))
}

fn distribute_with(
    module: &Module,
    target: &Target,
    request: &PlanRequest,
    estimate: &str,
) -> Result<(Outcome, Module, Plan)> {
    let planning = planning_passes(&request.pins, estimate)?;
    let largest = (0..target.topology.devices().len()).map(|d| target.memory_bytes(d)).max().unwrap_or(0);
    let mut reserve = 0u64;
    let mut refusal = None;
    for _ in 0..MAX_ROUNDS {
        let mut attempt = module.clone();
        let tighter = Target { memory_limit: Some(largest.saturating_sub(reserve)), ..target.clone() };
        let passes = OptimizeOptions {
            pipeline: "builtin.module()".into(),
            target: Some(Arc::new(tighter)),
            ..request.optimize.clone()
        };
        let mut placed = match optimize_and(&mut attempt, &passes, &planning, None) {
            Ok(placed) => placed,
            // A refusal with memory kept free says nothing of the devices as they are.
            Err(e) => return Err(refusal.unwrap_or(e)),
        };
        let plan = assemble(&attempt, target, request, &mut placed)?;
        let overflow = djinn_planner::overflow(&plan);
        if overflow == 0 {
            return Ok((placed, attempt, plan));
        }
        reserve = reserve.saturating_add(overflow);
        refusal = refusal.or(djinn_planner::capacities(&plan).err());
    }
    Err(refusal.unwrap_or_else(|| internal("plan.capacity", "no plan was made")))
}

/// Makes the plan of a module that the planning passes have annotated, and proves it. What shares bytes is the part of
/// a plan that is easiest to get wrong: a plan that is not proved is made again without that.
fn assemble(module: &Module, target: &Target, request: &PlanRequest, outcome: &mut Outcome) -> Result<Plan> {
    let entries = entries(module, request)?;
    let make = |sharing: bool| -> Result<Plan> {
        let program = crate::program_hash(module);
        let options = PlanOptions { program, sharing, ..PlanOptions::default() };
        let plan = djinn_planner::plan(module, target, &entries, &options)?;
        // What exceeds a device is no flaw of the plan, and the caller's to deal with.
        if djinn_planner::overflow(&plan) == 0 {
            accept(&plan, module)?;
        }
        Ok(plan)
    };
    match make(true) {
        Err(e) if e.culprit == Culprit::Internal => {
            let message = format!("views and results in place are given up: {} [{}]", e.message, e.code);
            let plan = make(false).map_err(|_| e)?;
            outcome.remarks.push(Remark {
                kind: RemarkKind::Missed,
                pass: "planner".into(),
                rule: "sharing".into(),
                place: String::new(),
                message,
            });
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
            entries.push(EntrySpec { function, sizes, phase: phase.clone(), resident: resident.clone() });
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
    let numbers = |what: &str| -> Vec<usize> {
        let text = module.metadata.get(format!("cache.{}.{what}", function.name).as_str());
        text.map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect()).unwrap_or_default()
    };
    let arguments =
        numbers("arguments").into_iter().filter_map(|n| function.arguments.get(n)).map(|(n, _)| n);
    let results = numbers("results").into_iter().filter_map(|n| function.results.get(n)).map(|(n, _)| n);
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
