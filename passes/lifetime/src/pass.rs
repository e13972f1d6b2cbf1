//! `lifetime`: an order of execution with a low peak of memory, within a memory limit if there is one.

use crate::model::{Model, Setting, op_order};
use crate::order::{Ordered, improve, lower_bounds};
use crate::prefetch::{Fetch, prefetch};
use crate::shrink::{Choice, Means, TRIES, View, choices, does_not_fit, overload, rebuilt};
use crate::units::units;
use djinn_cost::CostModel;
use djinn_device::{Profile, Target};
use djinn_diag::{Context, Diagnostic, RemarkKind, Result};
use djinn_ir::walk::known_before_runs;
use djinn_ir::{
    Caches, Function, Graph, Module, OpId, OpKind, Patch, Symbol, SymbolInfo, SymbolTable, ValueId,
};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the pass manager knows of `lifetime`.
pub static LIFETIME: PassInfo = PassInfo {
    name: "lifetime",
    summary: "orders operations for a low peak of memory; recomputes or spills values under a memory limit",
    requires: "a verified module without calls; kernel groups, if any, annotated",
    ensures: "operations of a kernel group are consecutive; the peak is within the limit, or an error (on several devices a \
              remark) says why not",
    preserves: "signatures, results bit for bit",
    options: &[
        OptionInfo {
            name: "memory-limit",
            default: "0",
            summary: "bytes that each device may use, weights and states included; 0 for what the target says",
        },
        OptionInfo {
            name: "search-states",
            default: "1000",
            summary: "sets of executed units that the search for an order looks at, at most",
        },
        OptionInfo {
            name: "decisions",
            default: "1000",
            summary: "values that are recomputed or spilled in one function, at most",
        },
    ],
};

/// Operations that are copied to try choices in one function, at most.
const MAX_WORK: u64 = 1_000_000;

/// Name of the only device where there is no target.
const UNNAMED_DEVICE: &str = "device";

/// The pass.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    memory_limit: Option<u64>,
    search_states: u64,
    decisions: u64,
}

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime { memory_limit: None, search_states: 1000, decisions: 1000 }
    }
}

impl Lifetime {
    /// The pass with the options of a pipeline.
    ///
    /// # Errors
    /// `pipeline.option` for values that are no whole numbers.
    pub fn new(options: &PassOptions) -> Result<Self> {
        Ok(Lifetime {
            memory_limit: Some(options.u64("memory-limit")?).filter(|limit| *limit > 0),
            search_states: options.u64("search-states")?,
            decisions: options.u64("decisions")?,
        })
    }

    /// The pass with a limit of bytes on each device.
    #[must_use]
    pub fn with_memory_limit(self, bytes: u64) -> Self {
        Lifetime { memory_limit: Some(bytes), ..self }
    }
}

impl Pass for Lifetime {
    fn info(&self) -> &'static PassInfo {
        &LIFETIME
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let target = cx.target.clone();
        let site = Site::new(target.as_deref(), self.memory_limit, &module.symbols);
        for i in 0..module.functions.len() {
            let kept = module.caches(&module.functions[i]);
            let function = &mut module.functions[i];
            let name = Arc::clone(&function.name);
            self.function(function, &module.symbols, &kept, &site, cx).at(|| format!("function '{name}'"))?;
        }
        Ok(())
    }
}

/// The function with another body.
fn with_body(function: &Function, graph: Graph) -> Function {
    Function {
        name: Arc::clone(&function.name),
        visibility: function.visibility,
        graph,
        arguments: function.arguments.clone(),
        results: function.results.clone(),
    }
}

/// The values of a function that stay on the device between runs.
fn kept_values(caches: &Caches, graph: &Graph) -> BTreeSet<ValueId> {
    let arguments = caches.arguments.iter().filter_map(|n| graph.arguments.get(*n));
    arguments.chain(caches.results.iter().filter_map(|n| graph.results.get(*n))).copied().collect()
}

/// Devices, their memory, and the way to their hosts.
struct Site<'a> {
    target: Option<&'a Target>,
    main: String,
    hosts: BTreeSet<String>,
    /// The symbols, each with the one size that it is reckoned with.
    sizes: SymbolTable,
    memory_limit: Option<u64>,
}

impl<'a> Site<'a> {
    fn new(target: Option<&'a Target>, memory_limit: Option<u64>, symbols: &SymbolTable) -> Self {
        let mut hosts = BTreeSet::from(["host".to_owned()]);
        let mut main = UNNAMED_DEVICE.to_owned();
        if let Some(target) = target {
            hosts.extend(target.topology.nodes().iter().map(|n| n.host.clone()));
            main = target.topology.devices().first().map_or(main, |d| d.name.clone());
        }
        let mut site = Site { target, main, hosts, sizes: SymbolTable::default(), memory_limit };
        let bound = target.into_iter().flat_map(|t| t.sizes.keys()).map(|name| Symbol::new(name));
        let sizes: Vec<(Symbol, i64)> = {
            let cost = site.cost(symbols);
            let known = symbols.0.keys().cloned().chain(bound);
            known.map(|s| (s.clone(), cost.symbol(&s))).collect()
        };
        for (symbol, size) in sizes {
            site.sizes.0.insert(symbol, SymbolInfo { min: size, max: Some(size), divisor: 1 });
        }
        site
    }

    fn index(&self, device: &str) -> Option<usize> {
        self.target.and_then(|t| t.topology.device_index(device))
    }

    /// The model of a function.
    fn model(&self, function: &Function, cost: &CostModel<'_>, kept: &Caches) -> Result<(Vec<bool>, Model)> {
        let ahead = known_before_runs(function);
        let units = units(&function.graph, &ahead)?;
        let kept = kept_values(kept, &function.graph);
        let setting =
            Setting { cost: *cost, sizes: &self.sizes, main: &self.main, hosts: &self.hosts, kept: &kept };
        let model = Model::new(function, &ahead, units, &setting);
        Ok((ahead, model))
    }

    fn cost<'s>(&'s self, symbols: &'s SymbolTable) -> CostModel<'s> {
        self.target.map_or_else(|| CostModel::generic(symbols), |t| CostModel::of_target(t, 0, symbols))
    }

    /// Bytes that each device of a model may use.
    fn limits(&self, model: &Model) -> Vec<Option<u64>> {
        let own = |d: &String| Some(self.target?.memory_bytes(self.index(d)?));
        let both = |d: &String| match (own(d), self.memory_limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        model.devices.iter().map(both).collect()
    }

    /// The host of each device and the seconds that a byte takes there and back.
    fn hosts(&self, model: &Model) -> Vec<Option<(String, f64)>> {
        let way = |d: &String| {
            let Some(target) = self.target else {
                return Some(("host".to_owned(), 2.0 / Profile::generic().host_link.bandwidth));
            };
            let host = target.topology.node_of(self.index(d)?)?.host.clone();
            let bytes = 1 << 20;
            let there = target.topology.route_for(d, &host, bytes).ok()?.seconds(bytes);
            let back = target.topology.route_for(&host, d, bytes).ok()?.seconds(bytes);
            Some((host, (there + back) / bytes as f64))
        };
        model.devices.iter().map(way).collect()
    }
}

/// The units that copy a value from a host to a device: a constant, or one that was spilled.
fn fetches(
    graph: &Graph,
    ahead: &[bool],
    model: &Model,
    cost: &CostModel<'_>,
    site: &Site<'_>,
    hosts: &[Option<(String, f64)>],
) -> Vec<Fetch> {
    let on_host = |v: &ValueId| {
        let maker = graph.definition(*v).map(|(id, _)| graph.op(id));
        let spilled = maker
            .filter(|op| op.kind == OpKind::Transfer)
            .is_some_and(|op| site.hosts.contains(op.attrs.str("device")));
        spilled || ahead[v.0 as usize]
    };
    let fetch = |(u, ops): (usize, &Vec<OpId>)| {
        let [id] = ops.as_slice() else { return None };
        let op = graph.op(*id);
        let device = model.devices.iter().position(|d| d == op.attrs.str("device"));
        let device =
            device.filter(|d| op.kind == OpKind::Transfer && !site.hosts.contains(&model.devices[*d]))?;
        let there_and_back = hosts[device].as_ref()?.1;
        let seconds = there_and_back / 2.0 * cost.bytes(graph.ty(op.results[0]));
        op.operands.iter().all(on_host).then_some(Fetch { unit: u as u32, device, seconds })
    };
    model.units.iter().enumerate().filter_map(fetch).collect()
}

/// The units of a model as they stand.
fn given(model: &Model) -> Vec<u32> {
    (0..model.units.len() as u32).collect()
}

/// Could the limits be kept if nothing but the operands and results of one unit were live at a time?
fn within_reach(model: &Model, limits: &[Option<u64>]) -> bool {
    let least = lower_bounds(model).into_iter().zip(&model.resident);
    let mut needs = least.map(|(live, resident)| resident.total().saturating_add(live));
    limits.iter().all(|limit| needs.next().is_none_or(|need| limit.is_none_or(|limit| need <= limit)))
}

impl Lifetime {
    fn function(
        &self,
        function: &mut Function,
        symbols: &SymbolTable,
        kept: &Caches,
        site: &Site<'_>,
        cx: &mut PassContext,
    ) -> Result<()> {
        let cost = site.cost(symbols);
        let (ahead, model) = site.model(function, &cost, kept)?;
        let ordered = improve(&model, self.search_states);
        self.report(function, &model, &ordered, cx);
        let order = op_order(&function.graph, &ahead, &model, &ordered.order);
        if !order.iter().copied().eq(function.graph.ops().map(|(id, _)| id)) {
            let mut patch = Patch::new("reorder", &function.graph);
            patch.reorder(order);
            cx.apply(patch, &mut function.graph)?;
        }
        let limits = site.limits(&model);
        if overload(&model, &ordered.order, &limits).is_none() {
            return self.prefetch(function, &cost, kept, site, cx);
        }
        let before = cx.statistics.get(&cx.pass, "rematerialise") + cx.statistics.get(&cx.pass, "spill");
        if within_reach(&model, &limits) {
            let mut work = MAX_WORK;
            for _ in 0..self.decisions {
                if self.shrink(function, &cost, kept, site, &mut work, cx)? {
                    break;
                }
            }
            if work == 0 {
                cx.count("searches stopped by work", 1);
            }
        }
        let after = cx.statistics.get(&cx.pass, "rematerialise") + cx.statistics.get(&cx.pass, "spill");
        if after > before {
            cx.count("values freed between uses", after - before);
        }
        self.check_limit(function, &cost, kept, site, cx)?;
        self.prefetch(function, &cost, kept, site, cx)
    }

    /// Moves copies from hosts forward, as far as memory admits.
    fn prefetch(
        &self,
        function: &mut Function,
        cost: &CostModel<'_>,
        kept: &Caches,
        site: &Site<'_>,
        cx: &mut PassContext,
    ) -> Result<()> {
        if !function.graph.ops().any(|(_, op)| op.kind == OpKind::Transfer) {
            return Ok(());
        }
        let (ahead, model) = site.model(function, cost, kept)?;
        let (limits, hosts) = (site.limits(&model), site.hosts(&model));
        let fetches = fetches(&function.graph, &ahead, &model, cost, site, &hosts);
        if fetches.is_empty() {
            return Ok(());
        }
        let of_unit = |ops: &Vec<OpId>| ops.iter().map(|id| cost.graph_op(&function.graph, *id, false)).sum();
        let seconds: Vec<f64> = model.units.iter().map(of_unit).collect();
        let order = prefetch(&model, &fetches, &seconds, &limits);
        let left = |order: &[u32]| overload(&model, order, &limits).map_or(0, |o| o.sum);
        if order == given(&model) || left(&order) > left(&given(&model)) {
            return Ok(());
        }
        let mut patch = Patch::new("prefetch", &function.graph);
        patch.reorder(op_order(&function.graph, &ahead, &model, &order));
        cx.apply(patch, &mut function.graph)?;
        cx.count("fetches", fetches.len() as u64);
        let message = format!("{} copies from the host are listed ahead of their use", fetches.len());
        cx.remark(RemarkKind::Applied, "prefetch", &function.name, message);
        Ok(())
    }

    /// Takes one choice; true if nothing is over the limit, no choice helps, or the fuel or work is used up.
    fn shrink(
        &self,
        function: &mut Function,
        cost: &CostModel<'_>,
        kept: &Caches,
        site: &Site<'_>,
        work: &mut u64,
        cx: &mut PassContext,
    ) -> Result<bool> {
        let (ahead, model) = site.model(function, cost, kept)?;
        let (limits, hosts) = (site.limits(&model), site.hosts(&model));
        let Some(place) = overload(&model, &given(&model), &limits) else { return Ok(true) };
        let view =
            View { function, ahead: &ahead, model: &model, cost: *cost, limits: &limits, hosts: &hosts };
        let mut taken: Option<(Choice, Graph)> = None;
        for choice in choices(&view, place).into_iter().take(TRIES) {
            *work = work.saturating_sub(function.graph.len() as u64);
            if *work == 0 {
                break;
            }
            let tried = with_body(function, rebuilt(&view, &choice));
            let (_, model) = site.model(&tried, cost, kept)?;
            let left = overload(&model, &given(&model), &site.limits(&model));
            if left.is_none_or(|o| o.sum < place.sum) {
                taken = Some((choice, tried.graph));
                break;
            }
        }
        let Some((choice, graph)) = taken else { return Ok(true) };
        let (rule, message) = match &choice.means {
            Means::Rematerialise(ops) => ("rematerialise", format!("{} operations run again", ops.len())),
            Means::Spill { host, .. } => ("spill", format!("a value waits in '{host}'")),
        };
        let report = cx.apply(Patch::replace_body(rule, graph), &mut function.graph)?;
        if report.changed() {
            cx.remark(RemarkKind::Applied, rule, &function.name, message);
        }
        Ok(!report.changed())
    }

    /// After all decisions: is the limit kept?
    fn check_limit(
        &self,
        function: &Function,
        cost: &CostModel<'_>,
        kept: &Caches,
        site: &Site<'_>,
        cx: &mut PassContext,
    ) -> Result<()> {
        let (ahead, model) = site.model(function, cost, kept)?;
        let limits = site.limits(&model);
        let Some(place) = overload(&model, &given(&model), &limits) else { return Ok(()) };
        if cx.fuel.is_exhausted() {
            return Ok(());
        }
        let view = View { function, ahead: &ahead, model: &model, cost: *cost, limits: &limits, hosts: &[] };
        self.refuse(does_not_fit(&view, place), site, function, cx)
    }

    /// The limit cannot be kept. On several devices another placement may fit, so that this is no error yet: a plan that
    /// does not fit is refused in the end.
    fn refuse(
        &self,
        why: Box<Diagnostic>,
        site: &Site<'_>,
        function: &Function,
        cx: &mut PassContext,
    ) -> Result<()> {
        if self.memory_limit.is_none() && site.target.is_some_and(|t| t.topology.devices().len() > 1) {
            cx.remark(RemarkKind::Missed, "memory", &function.name, why.message);
            return Ok(());
        }
        Err(why)
    }

    /// Counts and remarks of the order.
    fn report(&self, function: &Function, model: &Model, ordered: &Ordered, cx: &mut PassContext) {
        cx.count("peak bytes before", ordered.before.total());
        cx.count("peak bytes after", ordered.peaks.total());
        if ordered.stopped {
            cx.count("searches stopped by search-states", 1);
        }
        for (device, name) in model.devices.iter().enumerate() {
            let (old, new) = (ordered.before.bytes[device], ordered.peaks.bytes[device]);
            if new < old {
                let message = format!("peak on '{name}' falls from {old} to {new} bytes");
                cx.remark(RemarkKind::Applied, "reorder", &function.name, message);
            }
        }
    }
}
