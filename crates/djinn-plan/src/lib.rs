//! The execution plan as plain versioned data, its checker and simulator.
//!
//! - [`Plan`] and what it is made of ([`plan`]): devices, arenas, buffers, entries, streams, kernels, commands;
//! - [`check()`]: proves that a plan may run; shares no code with the planners;
//! - [`simulate()`]: when every command of a run starts and ends; [`trace`]: that, or measured times, for trace viewers;
//! - [`codec`]: JSON and binary form; [`text()`]: lines for people and snapshots;
//! - [`mutate`] and [`sample`]: changed, made-up and random plans, for tests of checkers and runtimes.
//!
//! A plan speaks of a *program*: the IR module it was made from, found by [`Plan::program`] (its hash). Kernels name
//! the operations they run by their position in the order of the function, so the plan itself needs no IR.
//!
//! Invariant: plain data. Nothing here computes a placement, an offset or an order.

pub mod check;
pub mod codec;
mod engine;
pub mod mutate;
pub mod plan;
pub mod sample;
pub mod simulate;
mod text;
pub mod trace;

pub use check::{Constraint, Proof, Violation, check, require};
pub use codec::{from_binary, from_json, to_binary, to_json};
pub use engine::{Engine, Granularity};
pub use plan::*;
pub use simulate::{Timeline, simulate};
pub use text::text;
pub use trace::{Counter, Span, spans_json, trace_json, traces_json};
