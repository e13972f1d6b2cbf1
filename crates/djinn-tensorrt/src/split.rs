//! Regions that TensorRT refuses in part: smaller regions, and the rest for kernels.

use crate::engine::Engine;
use crate::precision::Precision;
use crate::region::Region;
use djinn_diag::{Culprit, Diagnostic, Remark, RemarkKind, Result};
use djinn_ir::Module;
use djinn_plan::{Entry, KernelId};

/// Builds tried for one region, at most.
const MAX_ATTEMPTS: usize = 64;

/// What became of some kernels of a region. The pieces of a region can run one after the other in the order given.
#[derive(Debug)]
pub enum Outcome {
    /// They are an engine.
    Built {
        /// What it holds.
        region: Box<Region>,
        /// The engine.
        engine: Engine,
    },
    /// They stay kernels.
    Refused {
        /// The kernels.
        kernels: Vec<KernelId>,
        /// Their multiply-accumulate work, FLOP.
        flops: f64,
        /// Why, in TensorRT's words if they are its.
        reason: Box<Diagnostic>,
    },
}

impl Outcome {
    /// What is to be told of kernels that are in no engine.
    pub fn remark(&self, entry: &str) -> Option<Remark> {
        let Outcome::Refused { kernels, reason, .. } = self else { return None };
        let numbers: Vec<String> = kernels.iter().map(|k| k.0.to_string()).collect();
        Some(Remark {
            kind: RemarkKind::Missed,
            pass: "engines".into(),
            rule: reason.code.clone(),
            place: format!("{entry}, kernels {}", numbers.join(", ")),
            message: format!("no engine holds them: {}", reason.message),
        })
    }
}

/// Builds a region, or what of it can be built. `build_one` is asked for each piece: it may know the engine already.
pub fn build_or_split(
    program: &Module,
    entry: &Entry,
    engine: &djinn_plan::Engine,
    precision: &Precision,
    build_one: &mut dyn FnMut(&Region) -> Result<Engine>,
) -> Vec<Outcome> {
    let mut splitter = Splitter { program, entry, engine, precision, build_one, attempts: 0 };
    let mut outcomes = Vec::new();
    splitter.run(&engine.kernels, &mut outcomes);
    outcomes
}

struct Splitter<'a> {
    program: &'a Module,
    entry: &'a Entry,
    engine: &'a djinn_plan::Engine,
    precision: &'a Precision,
    build_one: &'a mut dyn FnMut(&Region) -> Result<Engine>,
    attempts: usize,
}

impl Splitter<'_> {
    fn run(&mut self, kernels: &[KernelId], outcomes: &mut Vec<Outcome>) {
        if kernels.is_empty() {
            return;
        }
        let region = Region::of_kernels(self.program, self.entry, self.engine, kernels);
        let region = region.and_then(|r| self.precision.apply(&r));
        let (region, reason) = match region {
            Err(reason) => return outcomes.push(self.refuse(kernels, reason)),
            Ok(region) => match self.attempt(&region) {
                Ok(engine) => return outcomes.push(Outcome::Built { region: Box::new(region), engine }),
                Err(reason) => (region, reason),
            },
        };
        if kernels.len() == 1 || self.attempts >= MAX_ATTEMPTS {
            return outcomes.push(self.refuse(kernels, reason));
        }
        // Kernels are listed in an order in which they can run, so any cut of the list is a convex one.
        let culprit = self.culprit(&region, kernels, &reason);
        let (first, last) = match culprit {
            Some(at) => (at, at + 1),
            None => (kernels.len() / 2, kernels.len() / 2),
        };
        self.run(&kernels[..first], outcomes);
        if last > first {
            self.run(&kernels[first..last], outcomes);
        }
        self.run(&kernels[last..], outcomes);
    }

    fn attempt(&mut self, region: &Region) -> Result<Engine> {
        self.attempts += 1;
        (self.build_one)(region)
    }

    fn refuse(&self, kernels: &[KernelId], reason: Box<Diagnostic>) -> Outcome {
        let flops = kernels.iter().filter_map(|k| self.entry.kernels.get(k.index())).map(|k| k.flops).sum();
        Outcome::Refused { kernels: kernels.to_vec(), flops, reason }
    }

    /// The kernel whose operation was refused, if the reason names it.
    fn culprit(&self, region: &Region, kernels: &[KernelId], reason: &Diagnostic) -> Option<usize> {
        debug_assert!(reason.culprit != Culprit::Input);
        let number = operation_in(reason)?;
        let (position, _) = region.origins.get(number)?;
        let holds =
            |k: &KernelId| self.entry.kernels.get(k.index()).is_some_and(|k| k.ops.contains(position));
        kernels.iter().position(holds)
    }
}

/// The number of the operation that a place or a layer's name speaks of.
fn operation_in(reason: &Diagnostic) -> Option<usize> {
    let digits = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let place = reason.place.iter().find_map(|p| digits(p.strip_prefix("operation ")?));
    let named = || {
        reason.message.match_indices("op").find_map(|(at, _)| {
            let rest = &reason.message[at + 2..];
            let number = digits(rest)?;
            rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.').then_some(number)
        })
    };
    place.or_else(named)
}
