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
//! Requires a verified module without calls of private functions where there are several devices. Ensures that every
//! operand of an operation is on its device. Preserves signatures and results bit for bit.

mod devices;
mod facts;
mod model;
mod report;
mod rewrite;

use crate::devices::Devices;
use crate::facts::{Activations, Facts, States};
use crate::model::Resident;
use crate::report::View;
use djinn_device::{Objective, Target};
use djinn_diag::{Context, RemarkKind, Result, input, internal};
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
        Ok(Self { objective, pins, activations })
    }
}

impl Pass for Colocate {
    fn info(&self) -> &'static PassInfo {
        &COLOCATE
    }

    fn run(&self, module: &mut Module, cx: &mut PassContext) -> Result<()> {
        let Some(target) = cx.target.clone() else {
            return Err(internal("colocate.target", "there is no target to place operations on"));
        };
        let devices = Devices::new(&target, &self.pins)?;
        if devices.names.len() == 1 {
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
        let mut order: Vec<usize> = (0..facts.len()).filter(|i| facts[*i].is_some()).collect();
        let held = |i: &usize| facts[*i].as_ref().map_or(0, |f| f.constant_bytes());
        order.sort_by_key(|i| (std::cmp::Reverse(held(i)), *i));
        let allowance = facts.iter().flatten().map(|f| f.activation_bytes).max().unwrap_or(0);
        let mut resident = Resident::new(allowance);
        for i in order {
            let Some(fact) = &facts[i] else { continue };
            let function = &module.functions[i];
            let placed = model::place(function, fact, &states, target, devices, objective, &mut resident)
                .at(|| format!("function '{}'", function.name))?;
            let (facts, placed, resident, symbols) = (fact, &placed, &resident, &module.symbols);
            report::remarks(&View { function, facts, placed, target, devices, symbols, resident }, cx);
            let graph = rewrite::rewrite(module, i, fact, placed, devices, cx)?;
            module.functions[i].graph = graph;
        }
        Ok(())
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
