//! What the pass says: why nothing fits, and what each device does and what limits it.

use crate::devices::{Devices, MAX_DEVICES};
use crate::facts::{Facts, States};
use crate::model::{Placed, Resident, state_bytes};
use crate::remark;
use crate::stream::Streamed;
use djinn_cost::CostModel;
use djinn_device::{Objective, Target};
use djinn_diag::{Diagnostic, input, units};
use djinn_ir::{Function, SymbolTable};
use djinn_pass::PassContext;

/// A device filled to this share is said to be limited by its memory.
const NEARLY_FULL: f64 = 0.95;

/// Bytes for people.
fn bytes_text(bytes: f64) -> String {
    units::bytes(bytes.max(0.0) as u64)
}

/// The arithmetic of what does not fit.
pub(crate) fn infeasible(
    function: &Function,
    facts: &Facts,
    states: &States,
    target: &Target,
    devices: &Devices,
    resident: &Resident,
    why: &str,
) -> Box<Diagnostic> {
    let weights = facts.constant_bytes() as f64;
    let state: f64 = state_bytes(facts, states).values().map(|b| *b as f64).sum();
    let activations = resident.allowance as f64;
    let count = devices.names.len();
    let room: f64 = (0..count).map(|d| target.memory_bytes(d) as f64).sum();
    let each: Vec<String> = (0..count.min(8))
        .map(|d| format!("{} {}", devices.names[d], bytes_text(target.memory_bytes(d) as f64)))
        .collect();
    let more = if count > each.len() { ", …" } else { "" };
    let needed = weights + state + activations * count as f64;
    let mut message = format!(
        "'{}' needs {} of weights, {} of states and {} of activations on each of {count} devices, {} in all; they \
         hold {} in all ({}{more})",
        function.name,
        bytes_text(weights),
        bytes_text(state),
        bytes_text(activations),
        bytes_text(needed),
        bytes_text(room),
        each.join(", "),
    );
    let taken = resident.held_in_all();
    if taken > 0 {
        message += &format!("; other functions take {} of that", bytes_text(taken as f64));
    }
    if needed + taken as f64 <= room {
        let largest = facts.constants.iter().map(|c| c.bytes).max().unwrap_or(0);
        message +=
            &format!("; no division fits ({why}; the largest weight takes {})", bytes_text(largest as f64));
    }
    input("colocate.memory", message).help(
        "use more or larger devices (--topology), smaller sizes (--bind), fewer bits for each weight, or fewer pins; or keep \
         what does not fit in the memory of the host (--stream-weights), from where every run copies it",
    )
}

/// All that is known of a placement.
pub(crate) struct View<'a> {
    pub(crate) function: &'a Function,
    pub(crate) facts: &'a Facts,
    pub(crate) placed: &'a Placed,
    pub(crate) target: &'a Target,
    pub(crate) devices: &'a Devices,
    pub(crate) symbols: &'a SymbolTable,
    pub(crate) resident: &'a Resident,
    pub(crate) streamed: &'a Streamed,
}

/// Says for each device what it does and what limits it, and how good the placement is.
pub(crate) fn remarks(view: &View<'_>, cx: &mut PassContext) {
    let View { function, facts, placed, target, devices, .. } = *view;
    let value = |x: f64| match placed.objective {
        Objective::Latency => format!("{} for one run", units::seconds(x)),
        Objective::Throughput => format!("{} between runs", units::seconds(x)),
        Objective::Memory => format!("{:.1} % of a memory in use", x * 100.0),
    };
    let bound = (placed.value > placed.lower_bound).then(|| {
        let gap = (placed.value - placed.lower_bound) / placed.value * 100.0;
        format!(", at most {gap:.1} % above the least possible")
    });
    let message = format!(
        "{}{} ({}); {} transfers take {}",
        value(placed.value),
        bound.unwrap_or_default(),
        placed.stopped_by,
        placed.cost.transfers,
        units::seconds(placed.cost.transfer_seconds),
    );
    remark(cx, function, "placement", message);
    if placed.circular {
        let message = "pins make devices wait for one another: they are no stages of a pipeline".to_string();
        remark(cx, function, "stages", message);
    }
    if target.topology.devices().len() > MAX_DEVICES {
        let message = format!("only the first {MAX_DEVICES} devices of the topology are considered");
        remark(cx, function, "devices", message);
    }
    for d in 0..devices.names.len() {
        let ops: Vec<usize> = (0..facts.ops.len()).filter(|p| placed.device[*p] == d).collect();
        if !ops.is_empty() {
            let message = stage(view, d, &ops);
            remark(cx, function, "stage", message);
        }
    }
}

/// What one device does, and what limits it.
fn stage(view: &View<'_>, d: usize, ops: &[usize]) -> String {
    let View { facts, placed, target, devices, resident, .. } = *view;
    let compute: f64 = ops.iter().map(|p| facts.seconds[*p][d]).sum();
    let streamed = view.streamed.bytes.get(d).copied().unwrap_or(0);
    let held = resident.held(d).saturating_sub(streamed).saturating_add(resident.allowance) as f64;
    let room = target.memory_bytes(d) as f64;
    let moved = placed.cost.loads[d] - compute;
    let limit = if held > NEARLY_FULL * room {
        "its capacity"
    } else if moved > compute {
        "its links"
    } else {
        busiest(view, d, ops)
    };
    let from_host = match streamed {
        0 => String::new(),
        bytes => format!(", and {} of weights copied from the host in every run", bytes_text(bytes as f64)),
    };
    format!(
        "{}: {} operations, {} of {} ({} for activations){from_host}, {} of work and {} of transfers; limited by {limit}",
        devices.names[d],
        ops.len(),
        bytes_text(held),
        bytes_text(room),
        bytes_text(resident.allowance as f64),
        units::seconds(compute),
        units::seconds(moved.max(0.0)),
    )
}

/// Which part of a device most of the time of its operations goes to.
fn busiest(view: &View<'_>, d: usize, ops: &[usize]) -> &'static str {
    let model = CostModel::of_target(view.target, d, view.symbols);
    let (facts, graph) = (view.facts, &view.function.graph);
    let (mut arithmetic, mut memory, mut launches) = (0.0, 0.0, 0.0);
    for p in ops {
        let op = graph.op(facts.ops[*p]);
        let operands: Vec<&djinn_ir::TensorType> = op.operands.iter().map(|v| graph.ty(*v)).collect();
        let results: Vec<djinn_ir::TensorType> = op.results.iter().map(|v| graph.ty(*v).clone()).collect();
        let work = model.work(op.kind, &op.attrs, &operands, &results);
        let precision =
            operands.first().map_or(djinn_device::Precision::F32, |t| djinn_cost::precision(t.dtype));
        arithmetic += work.flops / model.profile.peaks.of(precision);
        memory += (work.bytes_read + work.bytes_written) / model.profile.memory_bandwidth;
        launches += work.launches * model.profile.launch_seconds;
    }
    if launches >= arithmetic && launches >= memory {
        "launches of kernels"
    } else if arithmetic >= memory {
        "arithmetic"
    } else {
        "memory bandwidth"
    }
}
