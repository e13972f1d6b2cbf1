//! Memory per device, and whether it holds.

use djinn_diag::{Result, input, units};
use djinn_ir::{Function, Module, TensorType, ValueId};
use djinn_plan::{ArenaKind, Budget, BufferId, Content, DeviceId, Entry, Plan, Port, ValueRef, View};
use std::collections::BTreeMap;

/// Fills the budgets of every entry from the arenas and buffers.
pub(crate) fn fill(module: &Module, plan: &mut Plan, bounds: &[Vec<(djinn_plan::ArenaId, u64)>]) {
    let mut budgets = Vec::new();
    for (entry, bounds) in plan.entries.iter().zip(bounds) {
        let function = module.function(&entry.function);
        let of = |d| budget(plan, entry, function, DeviceId(d), bounds);
        budgets.push((0..plan.devices.len() as u32).map(of).collect::<Vec<_>>());
    }
    for (entry, budgets) in plan.entries.iter_mut().zip(budgets) {
        entry.budgets = budgets;
    }
}

fn budget(
    plan: &Plan,
    entry: &Entry,
    function: Option<&Function>,
    device: DeviceId,
    bounds: &[(djinn_plan::ArenaId, u64)],
) -> Budget {
    let arena = |kind: ArenaKind| {
        plan.arenas.iter().filter(|a| a.device == device && a.kind == kind).map(|a| a.bytes).sum::<u64>()
    };
    let (weights, state) = (arena(ArenaKind::Weights), arena(ArenaKind::State));
    let number = plan.entries.iter().position(|e| std::ptr::eq(e, entry)).unwrap_or(0) as u32;
    let here = |a: djinn_plan::ArenaId| {
        let arena = &plan.arenas[a.index()];
        arena.device == device && arena.kind == ArenaKind::Activations
    };
    let used = plan.buffers.iter().filter(|b| b.content == Content::Run { entry: number } && here(b.arena));
    let activations = used.map(|b| b.offset + b.bytes).max().unwrap_or(0);
    let activations_bound = bounds.iter().filter(|(a, _)| here(*a)).map(|(_, b)| *b).max().unwrap_or(0);
    let (kv_per_session, kv_per_token) = cache(plan, entry, function, device);
    let left = plan.devices[device.index()].memory_bytes.saturating_sub(weights).saturating_sub(activations);
    Budget {
        device,
        weights,
        state,
        kv_per_token,
        kv_per_session,
        activations,
        activations_bound,
        workspace: entry.kernels.iter().filter_map(|k| k.workspace).map(|w| w.bytes).max().unwrap_or(0),
        sessions: left.checked_div(kv_per_session),
    }
}

/// Bytes of the KV caches on a device, per session and per token of one.
///
/// A cache is a state, a resident input or a resident output of rank 4 or more, `[batch, heads, length, size]`: a
/// session is one row of the batch, a token one step of the length. What stands in the bytes of an input counts once, as
/// it is when it is largest; a resident output in a buffer of its own counts beside the input.
fn cache(plan: &Plan, entry: &Entry, function: Option<&Function>, device: DeviceId) -> (u64, u64) {
    let Some(function) = function else { return (0, 0) };
    let mut bytes: BTreeMap<(BufferId, u64), (u64, u64)> = BTreeMap::new();
    for (v, view) in caches(entry, function) {
        let ty = function.graph.ty(v);
        let here = plan.arenas[plan.buffers[view.buffer.index()].arena.index()].device == device;
        if !here || ty.rank() < 4 {
            continue;
        }
        let rows = largest(entry, ty, 0).max(1);
        let length = largest(entry, ty, ty.rank() - 2).max(1);
        let (session, token) = bytes.entry((view.buffer, view.offset)).or_default();
        *session = (*session).max(view.bytes / rows);
        *token = (*token).max(view.bytes / rows / length);
    }
    let sum =
        |total: (u64, u64), one: &(u64, u64)| (total.0.saturating_add(one.0), total.1.saturating_add(one.1));
    bytes.values().fold((0, 0), sum)
}

/// Values that stay on their device between runs, with their places: first those that go in.
fn caches(entry: &Entry, function: &Function) -> Vec<(ValueId, View)> {
    let graph = &function.graph;
    let argument = |n: u32| graph.arguments.get(n as usize).copied();
    let states = entry.states.iter().filter_map(|s| Some((argument(s.argument)?, s.view)));
    let resident = |p: &&Port| p.resident;
    let inputs = entry.inputs.iter().filter(resident).filter_map(|p| match p.value {
        ValueRef::Argument(n) => Some((argument(n)?, p.view?)),
        ValueRef::Result { .. } => None,
    });
    let outputs = entry.outputs.iter().filter(resident).filter_map(|p| {
        let number = function.results.iter().position(|(name, _)| **name == *p.name)?;
        Some((*graph.results.get(number)?, p.view?))
    });
    states.chain(inputs).chain(outputs).collect()
}

/// The largest size of an axis at the sizes of an entry.
fn largest(entry: &Entry, ty: &TensorType, axis: usize) -> u64 {
    let size = ty.shape[axis].eval(&|s| entry.symbols.iter().find(|r| r.name == s.name()).map(|r| r.max));
    u64::try_from(size.unwrap_or(1)).unwrap_or(1)
}

/// Bytes by which the fullest device exceeds what it can hold.
pub fn overflow(plan: &Plan) -> u64 {
    let excess = |(d, device): (usize, &djinn_plan::Device)| {
        let arenas = plan.arenas.iter().filter(|a| a.device.index() == d).map(|a| a.bytes);
        arenas.fold(0u64, u64::saturating_add).saturating_sub(device.memory_bytes)
    };
    plan.devices.iter().enumerate().map(excess).max().unwrap_or(0)
}

/// Holds every device what it is to hold?
///
/// # Errors
/// `plan.capacity` with the arithmetic.
pub fn capacities(plan: &Plan) -> Result<()> {
    for (d, device) in plan.devices.iter().enumerate() {
        let parts: Vec<(ArenaKind, u64)> =
            plan.arenas.iter().filter(|a| a.device.index() == d).map(|a| (a.kind, a.bytes)).collect();
        let total = parts.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if total > device.memory_bytes {
            let part =
                |(kind, bytes): &(ArenaKind, u64)| format!("{} {}", units::bytes(*bytes), kind_name(*kind));
            let sum = parts.iter().map(part).collect::<Vec<_>>().join(" + ");
            let message = format!(
                "{} cannot hold the plan: {sum} = {} of {}",
                device.name,
                units::bytes(total),
                units::bytes(device.memory_bytes)
            );
            return Err(input("plan.capacity", message).help(match device.host {
                true => "a topology file (--topology) says how much a host has: host_memory_bytes of its [[node]]",
                false => {
                    "use more or larger devices (--topology) or smaller sizes (--bind), or keep weights on the host and \
                     copy them in every run (--stream-weights)"
                }
            }));
        }
    }
    Ok(())
}

fn kind_name(kind: ArenaKind) -> &'static str {
    match kind {
        ArenaKind::Weights => "weights",
        ArenaKind::State => "state",
        ArenaKind::Activations => "activations",
        ArenaKind::Spill => "spilled values",
    }
}

#[cfg(test)]
mod tests {
    use crate::{EntrySpec, PlanOptions, SizeRange};
    use djinn_device::{Profile, Target};
    use djinn_ir::text;

    /// A cache of 8 bytes a token that goes in with 63 tokens, and out, in the same buffer, with 64.
    #[test]
    fn a_growing_cache_counts_once() {
        let source = r#""builtin.module"() ({
  "djinn.func"() ({
  ^bb0(%0: tensor<2x1x63x2xf32>, %1: tensor<2x1x1x2xf32>):
    %2 = "djinn.concat"(%0, %1) {axis = 2 : i64} : (tensor<2x1x63x2xf32>, tensor<2x1x1x2xf32>) -> tensor<2x1x64x2xf32>
    "djinn.return"(%2) : (tensor<2x1x64x2xf32>) -> ()
  }) {arguments = [{kind = "input", name = "cache"}, {kind = "input", name = "new"}], results = [{kind = "output", name = "out"}], sym_name = "main"} : () -> ()
}) {djinn.metadata = {}, djinn.symbols = {}} : () -> ()
"#;
        let module = text::parse_module(source).unwrap_or_else(|e| panic!("{e}"));
        let resident = |names: &[&str]| {
            let spec = EntrySpec {
                function: "main".into(),
                sizes: Vec::<SizeRange>::new(),
                phase: None,
                resident: names.iter().map(|n| (*n).into()).collect(),
                ..EntrySpec::default()
            };
            let target = Target::single(Profile::named("h100-80").expect("built in"));
            let plan = crate::plan(&module, &target, &[spec], &PlanOptions::default());
            let plan = plan.unwrap_or_else(|e| panic!("{e}"));
            let budget = plan.entries[0].budgets[0].clone();
            djinn_plan::check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
            (plan.devices[0].memory_bytes, budget)
        };
        let (_, one) = resident(&["cache"]);
        assert_eq!((one.kv_per_session, one.kv_per_token), (63 * 8, 8));
        let (memory, both) = resident(&["cache", "out"]);
        assert_eq!((both.kv_per_session, both.kv_per_token, both.state), (64 * 8, 8, 2 * 64 * 8));
        assert_eq!(both.sessions, Some((memory - both.weights - both.activations) / (64 * 8)));
    }
}
