//! `colocate`: a device for every operation, under capacities and links.
//!
//! Every operation of an entry function gets the annotation `device`, the name of a device of the target's topology,
//! and a `transfer` stands wherever a value crosses devices, once for each value and destination. An operation that
//! costs less than the transfer of its result, from operands that the other device has anyway, is computed there
//! again instead. Inputs, weights and what depends on weights alone need no transfer: the plan brings them to each
//! device that reads them.
//!
//! Annotations already there are *pins* and are kept, as are those that the option `pin` gives. A state, every
//! operation that reads it and the one that updates it are on one device, in all functions of the module. Functions
//! are placed one after another, the one with most weights first; the others follow the weights and states.
//!
//! With the option `stream-weights`, weights that the devices have no room for stay on the hosts: a
//! `transfer` brings them to their device before each use.
//!
//! Requires a verified module without calls of private functions where there are several devices. Ensures that every
//! operand of an operation is on its device. Preserves signatures and results bit for bit.

mod alternate;
mod devices;
mod facts;
mod model;
mod report;
mod rewrite;
mod stream;

use crate::devices::Devices;
use crate::facts::{Activations, Facts, States};
use crate::model::{Placed, Resident};
use crate::report::View;
use crate::stream::Streamed;
use djinn_device::{Objective, Target};
use djinn_diag::{Context, Culprit, RemarkKind, Result, input, internal};
use djinn_ir::{Function, Module};
use djinn_pass::{OptionInfo, Pass, PassContext, PassInfo, PassOptions};
use std::sync::Arc;

/// What the pass manager knows of `colocate`.
pub static COLOCATE: PassInfo = PassInfo {
    name: "colocate",
    summary: "chooses a device for every operation and inserts transfers",
    requires: "a verified module and a target",
    ensures: "every operation has a device and finds its operands there",
    preserves: "signatures, results bit for bit, device annotations",
    options: &[
        OptionInfo {
            name: "objective",
            default: "",
            summary: "latency, throughput or memory; the target's if empty",
        },
        OptionInfo {
            name: "activations",
            default: "peak",
            summary: "bytes kept free on every device: the peak of all operations, or the least that one needs",
        },
        OptionInfo {
            name: "spare",
            default: "0",
            summary: "bytes kept free on every device besides what is estimated for activations",
        },
        OptionInfo {
            name: "stream-weights",
            default: "false",
            summary: "weights that do not fit stay on the host and are copied to their device in every run",
        },
        OptionInfo {
            name: "pin",
            default: "",
            summary: "SCOPE:DEVICE, …: operations within these scopes run on these devices",
        },
    ],
};

/// The pass.
#[derive(Debug, Default)]
pub struct Colocate {
    objective: Option<Objective>,
    pins: Vec<(String, String)>,
    activations: Activations,
    spare: u64,
    stream_weights: bool,
}

impl Colocate {
    /// The pass with its options.
    ///
    /// # Errors
    /// `target.objective`, `colocate.activations` or `colocate.pin` for a value that is none.
    pub fn new(options: &PassOptions) -> Result<Self> {
        let objective = match options.get("objective")? {
            "" => None,
            word => Some(word.parse()?),
        };
        let pins = options.list("pin")?.into_iter().map(devices::parse_pin).collect::<Result<_>>()?;
        let activations = match options.get("activations")? {
            "peak" => Activations::Peak,
            "least" => Activations::Least,
            other => {
                let message = format!("'{other}' is no estimate of activations");
                return Err(input("colocate.activations", message).help("it is peak or least"));
            }
        };
        let stream_weights = options.bool("stream-weights")?;
        let spare = options.u64("spare")?;
        Ok(Self { objective, pins, activations, spare, stream_weights })
    }
}

impl Pass for Colocate {
    fn info(&self) -> &'static PassInfo {
        &COLOCATE
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let Some(target) = cx.target.clone() else {
            return Err(input("colocate.target", "there is no target to place operations on")
                .help("name the devices: --device or --topology"));
        };
        let devices = Devices::new(&target, &self.pins)?;
        if devices.names.len() == 1 && !self.stream_weights {
            return one_device(module, &devices, cx);
        }
        self.place(module, &target, &devices, cx)
    }
}

impl Colocate {
    fn place(
        &self,
        module: &mut Module,
        target: &Target,
        devices: &Devices,
        cx: &mut PassContext,
    ) -> Result<()> {
        let objective = self.objective.unwrap_or(target.objective);
        let mut facts: Vec<Option<Facts>> = Vec::new();
        let mut states = States::default();
        for function in &module.functions {
            let fact = if function.is_private() {
                None
            } else {
                let of = || format!("function '{}'", function.name);
                Some(Facts::new(module, function, target, devices, &mut states, self.activations).at(of)?)
            };
            facts.push(fact);
        }
        let mut work: Vec<(usize, Facts)> =
            facts.into_iter().enumerate().filter_map(|(i, f)| Some((i, f?))).collect();
        work.sort_by_key(|(i, f)| (std::cmp::Reverse(f.constant_bytes()), *i));
        let site = Site { target, devices, objective, states: &states, spare: self.spare };
        let (placed, resident) = site.place(module, &work, self.stream_weights)?;
        let pairs: Vec<(&Facts, &Placed)> = work.iter().map(|(_, f)| f).zip(&placed).collect();
        let streamed = match self.stream_weights {
            true => Streamed::choose(&pairs, &resident, target, &devices.names)?,
            false => Streamed::default(),
        };
        for ((i, facts), placed) in work.iter().zip(&placed) {
            let (function, symbols, resident) = (&module.functions[*i], &module.symbols, &resident);
            let streamed = &streamed;
            let view = View { function, facts, placed, target, devices, symbols, resident, streamed };
            report::remarks(&view, cx);
            let graph = rewrite::rewrite(module, *i, facts, placed, (devices, streamed), cx)?;
            module.functions[*i].graph = graph;
        }
        Ok(())
    }
}

/// What all functions are placed on.
struct Site<'a> {
    target: &'a Target,
    devices: &'a Devices,
    objective: Objective,
    states: &'a States,
    /// Bytes kept free besides those estimated for activations.
    spare: u64,
}

impl Site<'_> {
    /// Places the functions in this order. If weights may be streamed, as much of them as can be stays on the devices.
    fn place(
        &self,
        module: &Module,
        work: &[(usize, Facts)],
        stream: bool,
    ) -> Result<(Vec<Placed>, Resident)> {
        let most = work.iter().map(|(_, f)| f.activation_bytes).max().unwrap_or(0);
        let allowance = most.saturating_add(self.spare);
        let facts: Vec<&Facts> = work.iter().map(|(_, f)| f).collect();
        let mut refusal = None;
        for keep in model::parts_to_keep(&facts, self.states, self.target, stream) {
            let mut resident = Resident::new(allowance, keep);
            let place = |(i, facts): &(usize, Facts)| {
                let function = &module.functions[*i];
                model::place(
                    function,
                    facts,
                    self.states,
                    self.target,
                    self.devices,
                    self.objective,
                    &mut resident,
                )
                .at(|| format!("function '{}'", function.name))
            };
            match work.iter().map(place).collect::<Result<Vec<Placed>>>() {
                Ok(placed) => return Ok((placed, resident)),
                Err(e) if e.culprit == Culprit::Input => refusal = refusal.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        Err(refusal.unwrap_or_else(|| internal("colocate.memory", "nothing was placed")))
    }
}

/// Everything on the one device there is.
fn one_device(module: &mut Module, devices: &Devices, cx: &mut PassContext) -> Result<()> {
    let name: Arc<str> = Arc::clone(&devices.names[0]);
    let mut annotated = 0;
    for function in module.functions.iter_mut().filter(|f| !f.is_private()) {
        devices.check(function)?;
        annotated += rewrite::annotate_all(&mut function.graph, &name);
    }
    cx.count("operations annotated", annotated);
    Ok(())
}

/// The place of a function in remarks.
fn place_of(function: &Function) -> &str {
    &function.name
}

/// Adds a remark about a function.
fn remark(cx: &mut PassContext, function: &Function, rule: &str, message: String) {
    cx.remark(RemarkKind::Applied, rule, place_of(function), message);
}

#[cfg(test)]
mod tests;
